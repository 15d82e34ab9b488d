import * as fc from "fast-check";
import { expect, test } from "vitest";
import { formatInstant, instantMs, instantOfMs, parseInstant } from "./rfc3339.ts";

test.each([
  ["2031-01-02T03:04:05Z", 1925089445n, 0],
  ["2031-01-02T03:04:05.5Z", 1925089445n, 500_000_000],
  ["2031-01-02T03:04:05,5Z", 1925089445n, 500_000_000],
  ["2031-01-02T03:04:05.12345678999Z", 1925089445n, 123_456_789],
  ["2031-01-02T3:04:05Z", 1925089445n, 0],
  ["2031-01-02T03:04:05+02:00", 1925082245n, 0],
  ["2031-01-02T03:04:05.25-07:30", 1925116445n, 250_000_000],
  ["2028-02-29T00:00:00Z", 1835395200n, 0],
  ["0001-01-01T00:00:00Z", -62135596800n, 0],
  ["1969-12-31T23:59:59.999999999Z", -1n, 999_999_999],
])("%s is read", (text, seconds, nanos) => {
  expect(parseInstant(text)).toEqual({ seconds, nanos });
});

test.each([
  "",
  "1925000000",
  "2031-01-02t03:04:05Z",
  "2031-01-02T03:04:05z",
  "2031-01-02 03:04:05Z",
  "2031-01-02T03:04:05",
  "2031-01-02T24:00:00Z",
  "2031-01-02T23:60:00Z",
  "2031-12-31T23:59:60Z",
  "2031-02-30T00:00:00Z",
  "2029-02-29T00:00:00Z",
  "2031-00-01T00:00:00Z",
  "2031-13-01T00:00:00Z",
  "2031-1-02T00:00:00Z",
  "10000-01-01T00:00:00Z",
  "-2031-01-01T00:00:00Z",
  "2031-01-02T03:04:05.Z",
  "2031-01-02T03:04:05+25:00",
  "2031-01-02T03:04:05+0200",
  "2031-01-02T03:04:05ZZ",
  "2031-01-02T03:04:05Z\n",
  " 2031-01-02T03:04:05Z",
  "٢٠٣١-01-02T03:04:05Z",
])("%j is no instant", (text) => {
  expect(parseInstant(text)).toBeUndefined();
});

test("what is written reads as the same instant", () => {
  const instant = fc.record({
    seconds: fc.bigInt({ min: -62167219200n, max: 253402300799n }),
    nanos: fc.integer({ min: 0, max: 999_999_999 }),
  });
  fc.assert(
    fc.property(instant, (value) => {
      expect(parseInstant(formatInstant(value))).toEqual(value);
    }),
  );
});

test("milliseconds survive", () => {
  fc.assert(
    fc.property(fc.integer({ min: -62_167_219_200_000, max: 253_402_300_799_999 }), (ms) => {
      expect(instantMs(instantOfMs(ms))).toBe(ms);
    }),
  );
});
