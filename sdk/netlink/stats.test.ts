import { expect, test } from "vitest";
import { decodeStats, dumpStats, getStats } from "./stats.ts";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

test("asks for the 64-bit counters alone, of one device or of all", () => {
  expect([getStats(7).type, getStats(7).flags, hex(getStats(7).body)]).toEqual([
    94,
    0,
    "000000000700000001000000",
  ]);
  expect([dumpStats().flags, hex(dumpStats().body)]).toEqual([0x300, "000000000000000001000000"]);
});

const message = (counters: readonly bigint[], type = 1) => {
  const body = Buffer.alloc(16 + 8 * counters.length);
  body.writeUInt32LE(7, 4);
  body.writeUInt16LE(4 + 8 * counters.length, 12);
  body.writeUInt16LE(type, 14);
  counters.forEach((value, i) => body.writeBigUInt64LE(value, 16 + 8 * i));
  return { type: 92, flags: 0, seq: 1, body };
};

test("counters are read by their place, whatever else a newer kernel adds", () => {
  const counted = {
    ifindex: 7,
    counters: {
      rxPackets: 1,
      txPackets: 2,
      rxBytes: 2 ** 40,
      txBytes: 4,
      rxErrors: 5,
      txErrors: 6,
      rxDropped: 7,
      txDropped: 8,
    },
  };
  const known = [1n, 2n, 2n ** 40n, 4n, 5n, 6n, 7n, 8n];
  expect(decodeStats(message(known))).toEqual(counted);
  expect(decodeStats(message([...known, ...Array.from({ length: 30 }, () => 9n)]))).toEqual(counted);
});

test("what an older kernel does not count is 0, and other statistics are none", () => {
  expect(decodeStats(message([1n, 2n]))?.counters).toMatchObject({
    rxPackets: 1,
    txPackets: 2,
    txDropped: 0,
  });
  expect(decodeStats(message([1n], 2))).toBeUndefined();
});
