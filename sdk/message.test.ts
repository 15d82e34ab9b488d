/** Messages survive the way through bytes; bytes of strangers end in a message or in one kind of error. Golden bytes: test/spec. */
import { create, createRegistry, equals, fromBinary } from "@bufbuild/protobuf";
import type { DescField, DescMessage, Message } from "@bufbuild/protobuf";
import { WireType } from "@bufbuild/protobuf/wire";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { ConnectionSchema, PathSchema, file_connection } from "../api/gen/connection_pb.js";
import { file_connectioncontext } from "../api/gen/connectioncontext_pb.js";
import { file_ipam } from "../api/gen/ipam_pb.js";
import { NetworkServiceRequestSchema, file_networkservice } from "../api/gen/networkservice_pb.js";
import { file_registry } from "../api/gen/registry_pb.js";
import { NsmError } from "./errors.ts";
import { decodeMessage, encodeMessage } from "./message.ts";
import { readFields, readVarint, writeTag, writeVarint } from "./wire-format.ts";

const files = [file_connection, file_connectioncontext, file_networkservice, file_registry, file_ipam];
const types = [...createRegistry(...files)].filter((type) => type.kind === "message");
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const bytes = (text: string) => Buffer.from(text, "hex");

/** Values of a field, or of a list's or map's element, as `create` takes them. */
function valueOf(field: DescField, depth: number): fc.Arbitrary<unknown> {
  if (field.message !== undefined) return initOf(field.message, depth - 1);
  if (field.enum !== undefined) return fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
  const text = fc.string({ unit: "grapheme", maxLength: 8 });
  const scalars: Readonly<Record<number, fc.Arbitrary<unknown>>> = {
    3: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    5: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
    8: fc.boolean(),
    9: text,
    12: fc.uint8Array({ maxLength: 8 }),
    13: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  };
  const scalar = scalars[field.scalar ?? 0];
  if (scalar === undefined) throw new Error(`no values for ${field.name}`);
  return scalar;
}

/** `depth` bounds recursion: below 0 all fields are left out. */
function initOf(schema: DescMessage, depth: number): fc.Arbitrary<Record<string, unknown>> {
  if (depth < 0) return fc.constant({});
  const fields = schema.fields.map((field): [string, fc.Arbitrary<unknown>] => {
    const value = valueOf(field, depth);
    if (field.fieldKind === "list") return [field.localName, fc.array(value, { maxLength: 3 })];
    const key = fc.string({ maxLength: 4 });
    if (field.fieldKind === "map") return [field.localName, fc.dictionary(key, value, { maxKeys: 3 })];
    return [field.localName, value];
  });
  return fc.record(Object.fromEntries(fields), { requiredKeys: [] });
}

const messages: fc.Arbitrary<{ schema: DescMessage; message: Message }> = fc
  .constantFrom(...types)
  .chain((schema) => initOf(schema, 3).map((init) => ({ schema, message: create(schema, init) })));

test(`messages of all ${types.length} types survive`, () => {
  fc.assert(
    fc.property(messages, ({ schema, message }) => {
      const encoded = encodeMessage(schema, message);
      const decoded = decodeMessage(schema, encoded);
      expect(equals(schema, decoded, message)).toBe(true);
      expect(hex(encodeMessage(schema, decoded))).toBe(hex(encoded));
    }),
    { numRuns: 3000 },
  );
});

test("unknown fields survive wherever they stand", () => {
  const unknown = fc.record({
    number: fc.integer({ min: 100, max: 2 ** 29 - 1 }),
    value: fc.uint8Array({ maxLength: 9 }),
  });
  fc.assert(
    fc.property(messages, fc.array(unknown, { minLength: 1, maxLength: 3 }), ({ schema, message }, more) => {
      const known = encodeMessage(schema, message);
      const extra = more.flatMap(({ number, value }) => [
        writeTag(number, WireType.LengthDelimited),
        writeVarint(value.length),
        value,
      ]);
      const [first = new Uint8Array(), ...rest] = readFields(known).map((f) =>
        known.subarray(f.start, f.end),
      );
      const relayed = encodeMessage(schema, decodeMessage(schema, Buffer.concat([first, ...extra, ...rest])));
      expect(hex(relayed)).toBe(hex(Buffer.concat([known, ...extra])));
    }),
    { numRuns: 2000 },
  );
});

test("damaged bytes end in a message that is stable from then on, or in INVALID_ARGUMENT", () => {
  let read = 0;
  let refused = 0;
  const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), {
    minLength: 1,
    maxLength: 4,
  });
  fc.assert(
    fc.property(messages, damage, fc.nat(), ({ schema, message }, changes, cut) => {
      const encoded = encodeMessage(schema, message);
      const damaged = Buffer.from(cut % 4 === 0 ? encoded.subarray(0, cut % (encoded.length + 1)) : encoded);
      for (const [at, value] of changes) if (damaged.length > 0) damaged[at % damaged.length] = value;
      try {
        const once = encodeMessage(schema, decodeMessage(schema, damaged));
        const twice = encodeMessage(schema, decodeMessage(schema, once));
        if (hex(twice) !== hex(once)) throw new Error(`${hex(once)} becomes ${hex(twice)}`);
        read++;
      } catch (error) {
        if (!(error instanceof NsmError) || error.reason !== "bad-message") throw error;
        refused++;
      }
    }),
    { numRuns: 10_000 },
  );
  expect(Math.min(read, refused)).toBeGreaterThan(1000);
});

test.each([
  ["a varint where a text belongs", ConnectionSchema, "0805"],
  ["a varint where a message belongs", ConnectionSchema, "3005"],
  ["a text where an enum belongs", ConnectionSchema, "4a0101"],
  ["a group where a text belongs", ConnectionSchema, "0b08010c"],
  ["a fixed32 where a number belongs", PathSchema, "0d03000000"],
  ["a real field of the wrapping's number", ConnectionSchema, "0805faffffff0f0161"],
  ["one deep inside", NetworkServiceRequestSchema, "0a0432020805"],
])("%s is kept as it is", (_, schema: DescMessage, text) => {
  expect(hex(encodeMessage(schema, decodeMessage(schema, bytes(text))))).toBe(text);
});

test("the library alone would misread a foreign wire type", () => {
  const input = bytes("080161620161");
  expect(fromBinary(ConnectionSchema, input).id).toBe("a");
  expect(() => decodeMessage(ConnectionSchema, input)).toThrow(NsmError);
});

test("map entries are written whole even when they are empty", () => {
  const connection = create(ConnectionSchema, { labels: { "": "" } });
  expect(hex(encodeMessage(ConnectionSchema, connection))).toBe("2a040a001200");
});

test("a label named like a part of a prototype is a label", () => {
  const entry = (key: string) =>
    `2a${(key.length + 5).toString(16).padStart(2, "0")}0a${key.length.toString(16).padStart(2, "0")}${hex(Buffer.from(key))}120176`;
  const text = entry("__proto__") + entry("constructor");
  const connection = decodeMessage(ConnectionSchema, bytes(text));
  expect(Object.entries(connection.labels)).toEqual([
    ["__proto__", "v"],
    ["constructor", "v"],
  ]);
  expect(hex(encodeMessage(ConnectionSchema, connection))).toBe(text);
});

test("depth is refused before it can hurt", () => {
  const group = (depth: number) => bytes("a301".repeat(depth) + "a401".repeat(depth));
  expect(() => decodeMessage(ConnectionSchema, group(30))).not.toThrow();
  expect(() => decodeMessage(ConnectionSchema, group(34))).toThrow(/deeper than 32/);
  expect(() => decodeMessage(ConnectionSchema, group(100_000))).toThrow(/deeper than 32/);
});

test("varints have ten bytes and 64 bits", () => {
  for (const value of [0, 1, 127, 128, 300, 2 ** 32, 2 ** 53 - 1]) {
    const written = writeVarint(value);
    expect(readVarint(written, 0)).toEqual({ value, end: written.length });
  }
  expect(readVarint(bytes("ffffffffffffffffff01"), 0).end).toBe(10);
  for (const wrong of ["", "80", "ffffffffffffffffff02", "8080808080808080808001"]) {
    expect(() => readVarint(bytes(wrong), 0)).toThrow(/varint/);
  }
});
