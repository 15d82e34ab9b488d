/** messages.json and unknown-fields.json: bytes and JSON of every message, odd and malformed bytes. */
import { createRegistry, fromJson, toJson } from "@bufbuild/protobuf";
import type { DescMessage, JsonValue } from "@bufbuild/protobuf";
import { WireType } from "@bufbuild/protobuf/wire";
import { EmptySchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { file_connection } from "../../api/gen/connection_pb.js";
import { file_connectioncontext } from "../../api/gen/connectioncontext_pb.js";
import { file_ipam } from "../../api/gen/ipam_pb.js";
import { file_networkservice } from "../../api/gen/networkservice_pb.js";
import { file_registry } from "../../api/gen/registry_pb.js";
import { decodeMessage, encodeMessage } from "../../sdk/message.ts";
import { readFields, writeTag, writeVarint } from "../../sdk/wire-format.ts";
import { describeVectors, outcomeOf, same, sameError, vectorKind } from "./support.ts";

const types = createRegistry(
  file_connection,
  file_connectioncontext,
  file_networkservice,
  file_registry,
  file_ipam,
  TimestampSchema,
  EmptySchema,
);

interface MessageVector {
  readonly type: string;
  readonly bytes: string;
  readonly json: JsonValue;
}

describeVectors("messages.json", {
  "": vectorKind<MessageVector>((vector) => {
    const schema = schemaOf(vector.type);
    const bytes = Buffer.from(vector.bytes, "base64");
    const message = decodeMessage(schema, bytes);
    same("json", toJson(schema, message), canonicalJson(schema, vector.json));
    same("bytes", hex(withSortedMaps(schema, encodeMessage(schema, message))), hex(bytes));
    const fromText = fromJson(schema, vector.json);
    same("bytes of the json", hex(withSortedMaps(schema, encodeMessage(schema, fromText))), hex(bytes));
  }),
});

interface OddVector {
  readonly type: string;
  readonly input: string;
  readonly output?: string;
  readonly json?: JsonValue;
  readonly jsonError?: unknown;
  readonly error?: true;
}

describeVectors("unknown-fields.json", {
  "": vectorKind<OddVector>(async (vector) => {
    const schema = schemaOf(vector.type);
    const message = sameError(
      await outcomeOf(() => decodeMessage(schema, Buffer.from(vector.input, "base64"))),
      vector.error,
    );
    if (message === undefined) return;
    const output = withSortedMaps(schema, encodeMessage(schema, message));
    same("output", hex(output), hex(Buffer.from(vector.output ?? "", "base64")));
    const text = await outcomeOf(() => toJson(schema, message));
    same("has a JSON form", "value" in text, vector.jsonError === undefined);
    if ("value" in text) same("json", text.value, canonicalJson(schema, vector.json ?? {}));
  }),
});

function schemaOf(type: string): DescMessage {
  const schema = types.getMessage(type);
  if (schema === undefined) throw new Error(`no message type ${type}`);
  return schema;
}

/** The recorded JSON as our writer spells it: the order of map members is free. */
function canonicalJson(schema: DescMessage, json: JsonValue): JsonValue {
  return toJson(schema, fromJson(schema, json));
}

/** The same message with map entries in the order of their keys' bytes: JavaScript objects have an order of their own. */
function withSortedMaps(schema: DescMessage, bytes: Uint8Array): Buffer {
  const parts = readFields(bytes).map((raw) => {
    const field = schema.fields.find(({ number }) => number === raw.number);
    const value = bytes.subarray(raw.value, raw.end);
    const whole = bytes.subarray(raw.start, raw.end);
    if (field?.fieldKind === "map")
      return { map: raw.number, key: keyOf(value), bytes: sortedEntry(field, raw.number, value, whole) };
    if (field?.message === undefined || raw.wireType !== WireType.LengthDelimited) return { bytes: whole };
    return { bytes: nested(raw.number, withSortedMaps(field.message, value)) };
  });
  const sorted = parts.toSorted((a, b) =>
    a.map !== undefined && a.map === b.map ? Buffer.compare(a.key, b.key) : 0,
  );
  return Buffer.concat(sorted.map((part) => part.bytes));
}

function sortedEntry(
  field: { readonly message?: DescMessage | undefined },
  number: number,
  entry: Uint8Array,
  whole: Uint8Array,
): Uint8Array {
  const { message } = field;
  if (message === undefined) return whole;
  const parts = readFields(entry).map((raw) =>
    raw.number === 2
      ? nested(2, withSortedMaps(message, entry.subarray(raw.value, raw.end)))
      : entry.subarray(raw.start, raw.end),
  );
  return nested(number, Buffer.concat(parts));
}

function keyOf(entry: Uint8Array): Uint8Array {
  const key = readFields(entry).find((raw) => raw.number === 1);
  return key === undefined ? entry.subarray(0, 0) : entry.subarray(key.value, key.end);
}

function nested(number: number, value: Uint8Array): Buffer {
  return Buffer.concat([writeTag(number, WireType.LengthDelimited), writeVarint(value.length), value]);
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
