/**
 * Protocol Buffers messages to and from bytes, read as the Go programs read them (docs/protocol.md, "Messages").
 *
 * Unknown fields are kept, and so is a known field that arrives with a wire type that is not its own. The library reads fields by
 * number alone and would take such bytes for something else: they are looked at first, and odd fields pass it in a wrapping.
 */
import { ScalarType, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { DescField, DescMessage, Message, MessageShape, UnknownField } from "@bufbuild/protobuf";
import { WireType } from "@bufbuild/protobuf/wire";
import { NsmError, messageOf } from "./errors.ts";
import {
  LARGEST_FIELD,
  MAX_DEPTH,
  readFields,
  readTag,
  readVarint,
  writeTag,
  writeVarint,
} from "./wire-format.ts";
import type { RawField } from "./wire-format.ts";

/** Number of the wrapping: a bytes field that holds one whole odd field. A field that really has this number is wrapped too. */
const WRAPPING = LARGEST_FIELD;

/** Map entries have key and value even when these are empty, as Go writes them. */
export function encodeMessage<D extends DescMessage>(schema: D, message: MessageShape<D>): Buffer {
  const bytes = toBinary(schema, message);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Throws INVALID_ARGUMENT `bad-message` where Go refuses the bytes too, and for messages nested deeper than 32. */
export function decodeMessage<D extends DescMessage>(schema: D, bytes: Uint8Array): MessageShape<D> {
  try {
    const shape = shapeOf(schema);
    if (!hasOddField(shape, bytes, 0)) return fromBinary(schema, bytes, { recursionLimit: MAX_DEPTH });
    const message = fromBinary(schema, wrapOddFields(shape, bytes), { recursionLimit: MAX_DEPTH });
    unwrapOddFields(message);
    return message;
  } catch (error) {
    throw new NsmError("INVALID_ARGUMENT", "bad-message", `${schema.typeName}: ${messageOf(error)}`, error);
  }
}

/** What is known of a message's fields. */
type Shape = ReadonlyMap<number, FieldShape>;
interface FieldShape {
  readonly wireTypes: readonly WireType[];
  /** Of a message or a map entry. */
  readonly nested?: () => Shape;
}

/** All scalars that are no varints. */
const OTHER_WIRE_TYPES: ReadonlyMap<ScalarType, WireType> = new Map([
  [ScalarType.STRING, WireType.LengthDelimited],
  [ScalarType.BYTES, WireType.LengthDelimited],
  [ScalarType.DOUBLE, WireType.Bit64],
  [ScalarType.FIXED64, WireType.Bit64],
  [ScalarType.SFIXED64, WireType.Bit64],
  [ScalarType.FLOAT, WireType.Bit32],
  [ScalarType.FIXED32, WireType.Bit32],
  [ScalarType.SFIXED32, WireType.Bit32],
]);

const shapes = new WeakMap<DescMessage, Shape>();

function shapeOf(schema: DescMessage): Shape {
  let shape = shapes.get(schema);
  if (shape === undefined) {
    shape = new Map(schema.fields.map((field) => [field.number, fieldShape(field)]));
    shapes.set(schema, shape);
  }
  return shape;
}

function fieldShape(field: DescField): FieldShape {
  switch (field.fieldKind) {
    case "message":
      return messageShape(field.message);
    case "map":
      return { wireTypes: [WireType.LengthDelimited], nested: () => entryShape(field) };
    case "list": {
      if (field.listKind === "message") return messageShape(field.message);
      const element = field.listKind === "enum" ? WireType.Varint : wireTypeOf(field.scalar);
      // Packed or one by one, both are read.
      return { wireTypes: [WireType.LengthDelimited, element] };
    }
    case "enum":
      return { wireTypes: [WireType.Varint] };
    case "scalar":
      break;
  }
  return { wireTypes: [wireTypeOf(field.scalar)] };
}

function entryShape(field: DescField & { fieldKind: "map" }): Shape {
  const value =
    field.mapKind === "message"
      ? messageShape(field.message)
      : { wireTypes: [field.mapKind === "enum" ? WireType.Varint : wireTypeOf(field.scalar)] };
  return new Map([
    [1, { wireTypes: [wireTypeOf(field.mapKey)] }],
    [2, value],
  ]);
}

function messageShape(schema: DescMessage): FieldShape {
  return { wireTypes: [WireType.LengthDelimited], nested: () => shapeOf(schema) };
}

function wireTypeOf(scalar: ScalarType): WireType {
  return OTHER_WIRE_TYPES.get(scalar) ?? WireType.Varint;
}

/** Reads all tags and lengths, and throws where they are malformed. */
function hasOddField(shape: Shape, bytes: Uint8Array, depth: number): boolean {
  if (depth > MAX_DEPTH) throw new Error(`nested deeper than ${MAX_DEPTH}`);
  let found = false;
  for (const field of readFields(bytes)) {
    const nested = shape.get(field.number)?.nested;
    if (isOdd(shape, field)) found = true;
    else if (nested && hasOddField(nested(), bytes.subarray(field.value, field.end), depth + 1)) found = true;
  }
  return found;
}

function isOdd(shape: Shape, { number, wireType }: RawField): boolean {
  const known = shape.get(number);
  return known === undefined ? number === WRAPPING : !known.wireTypes.includes(wireType);
}

function wrapOddFields(shape: Shape, bytes: Uint8Array): Uint8Array {
  const parts = readFields(bytes).map((field) => {
    const whole = bytes.subarray(field.start, field.end);
    if (isOdd(shape, field)) return bytesField(WRAPPING, whole);
    const nested = shape.get(field.number)?.nested;
    if (nested === undefined) return whole;
    return bytesField(field.number, wrapOddFields(nested(), bytes.subarray(field.value, field.end)));
  });
  return Buffer.concat(parts);
}

function bytesField(number: number, value: Uint8Array): Uint8Array {
  return Buffer.concat([writeTag(number, WireType.LengthDelimited), writeVarint(value.length), value]);
}

/** In a decoded message and all messages in it. */
function unwrapOddFields(value: unknown): void {
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return;
  if (isMessage(value) && value.$unknown !== undefined) value.$unknown = value.$unknown.map(unwrapped);
  for (const [name, inner] of Object.entries(value)) if (name !== "$unknown") unwrapOddFields(inner);
}

function isMessage(value: object): value is Message {
  return "$typeName" in value;
}

/** The data of an unknown field is all that follows its tag. */
function unwrapped(field: UnknownField): UnknownField {
  if (field.no !== WRAPPING) return field;
  const start = readVarint(field.data, 0).end;
  const { number, wireType, end } = readTag(field.data, start);
  return { no: number, wireType, data: field.data.slice(end) };
}
