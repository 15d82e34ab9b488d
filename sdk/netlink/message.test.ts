import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  be16,
  bytes,
  decodeAttributes,
  encodeAttributes,
  listAttributes,
  nest,
  text,
  u16,
  u32,
  u8,
} from "./attribute.ts";
import { KernelError, NLM_F, decodeError, decodeMessages, encodeMessage } from "./message.ts";

const hex = (value: string) => Buffer.from(value.replaceAll(" ", ""), "hex");

describe("attributes", () => {
  test.each([
    ["u8, padded", u8(7, 0xff), "0500 0700 ff000000"],
    ["u16", u16(7, 0x1234), "0600 0700 34120000"],
    ["u16 in network order", be16(7, 0x1234), "0600 0700 12340000"],
    ["u32", u32(7, 0x12345678), "0800 0700 78563412"],
    ["text with its NUL", text(7, "abc"), "0800 0700 61626300"],
    ["bytes", bytes(7, Uint8Array.of(1, 2, 3, 4, 5)), "0900 0700 01020304 05000000"],
    ["a nest", nest(7, [u8(1, 1)]), "0c00 0780 05000100 01000000"],
  ])("%s", (_, attribute, expected) => {
    expect(encodeAttributes([attribute])).toEqual(hex(expected));
  });

  test("what was encoded is decoded, whatever the bytes", () => {
    const attribute = fc.record({
      type: fc.integer({ min: 0, max: 0x3fff }),
      value: fc.uint8Array({ maxLength: 40 }),
    });
    fc.assert(
      fc.property(fc.array(attribute), (attributes) => {
        const found = listAttributes(encodeAttributes(attributes));
        expect(found.map(({ type, value }) => ({ type, value: Uint8Array.from(value) }))).toEqual(attributes);
      }),
    );
  });

  test("rubbish is read without a throw, and a truncated value as absent", () => {
    fc.assert(fc.property(fc.uint8Array(), (rubbish) => void listAttributes(Buffer.from(rubbish))));
    const short = decodeAttributes(encodeAttributes([bytes(1, Uint8Array.of(1))]));
    expect([short.u8(1), short.u16(1), short.u32(1), short.u8(2)]).toEqual([
      1,
      undefined,
      undefined,
      undefined,
    ]);
    expect(short.nest(9).has(1)).toBe(false);
  });

  test("a text ends at its NUL", () => {
    expect(decodeAttributes(hex("0a000100 61620063 64000000")).text(1)).toBe("ab");
  });
});

describe("messages", () => {
  test("a request is a header and its body, padded for the next one", () => {
    expect(encodeMessage(18, NLM_F.REQUEST | NLM_F.ACK, 7, hex("0102030405"))).toEqual(
      hex("15000000 1200 0500 07000000 00000000 0102030405000000"),
    );
  });

  test("a datagram of two messages is read as two, a truncated one is left out", () => {
    const two = Buffer.concat([encodeMessage(16, 2, 1, hex("01")), encodeMessage(3, 2, 2, hex("00000000"))]);
    expect(decodeMessages(two).map(({ type, seq }) => [type, seq])).toEqual([
      [16, 1],
      [3, 2],
    ]);
    expect(decodeMessages(two.subarray(0, -1))).toHaveLength(1);
  });

  test("an acknowledgement is no error", () => {
    const [ack] = decodeMessages(
      hex("24000000 0200 0001 07000000 00000000 00000000 20000000 1000 0506 07000000 00000000"),
    );
    expect(ack && decodeError(ack, "x")).toBeUndefined();
  });

  test("a refusal keeps errno, the kernel's words and the offset", () => {
    const body = Buffer.concat([
      hex("ef ff ff ff 20000000 1000 0506 07000000 00000000"),
      encodeAttributes([text(1, "A VXLAN device with the specified VNI already exists"), u32(2, 68)]),
    ]);
    const error = decodeError({ type: 2, flags: 0x300, seq: 7, body }, "new vxlan a");
    expect(error).toBeInstanceOf(KernelError);
    expect(error).toMatchObject({
      code: "EEXIST",
      errno: 17,
      offset: 68,
      message: "new vxlan a: EEXIST (A VXLAN device with the specified VNI already exists)",
    });
  });

  test("without CAPPED the kernel's words follow the whole request", () => {
    const body = Buffer.concat([
      hex("ea ff ff ff 18000000 1000 0506 07000000 00000000 aabbccdd 11223344"),
      encodeAttributes([text(1, "why")]),
    ]);
    expect(decodeError({ type: 2, flags: 0x200, seq: 7, body }, "x")?.said).toBe("why");
    expect(
      decodeError(
        {
          type: 3,
          flags: 0x200,
          seq: 7,
          body: Buffer.concat([hex("eaffffff"), encodeAttributes([text(1, "end")])]),
        },
        "x",
      )?.said,
    ).toBe("end");
  });
});
