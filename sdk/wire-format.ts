/**
 * The fields of a Protocol Buffers message as they stand in its bytes (protobuf.dev, "Encoding"), as strictly as Go reads them:
 * a varint has at most ten bytes and 64 bits, field numbers are 1 to 2^29-1, a group ends with its own number.
 */
import { WireType } from "@bufbuild/protobuf/wire";

/** By the number in a tag. */
const WIRE_TYPES = [
  WireType.Varint,
  WireType.Bit64,
  WireType.LengthDelimited,
  WireType.StartGroup,
  WireType.EndGroup,
  WireType.Bit32,
];

/** Deepest nesting of messages and groups. None of the mesh's own messages is deeper than 8. */
export const MAX_DEPTH = 32;
export const LARGEST_FIELD = 2 ** 29 - 1;

/** One field: tag, for texts, bytes and messages a length, value. Positions are byte offsets. */
export interface RawField {
  readonly number: number;
  readonly wireType: WireType;
  /** Of the tag. */
  readonly start: number;
  /** Of the value: behind the length where there is one. */
  readonly value: number;
  readonly end: number;
}

/** The fields of one message in order. Throws an Error that names the position of the fault. */
export function readFields(bytes: Uint8Array): readonly RawField[] {
  const fields: RawField[] = [];
  for (let at = 0; at < bytes.length; at = fields.at(-1)?.end ?? bytes.length)
    fields.push(readField(bytes, at, 0));
  return fields;
}

/** Tag or length. Exact below 2^53. */
export function writeVarint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) + 0x80);
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

export function writeTag(number: number, wireType: WireType): Uint8Array {
  return writeVarint(number * 8 + wireType);
}

/** The tag at `at`: its number, wire type and end. */
export function readTag(bytes: Uint8Array, at: number): { number: number; wireType: WireType; end: number } {
  const tag = readVarint(bytes, at);
  const number = Math.floor(tag.value / 8);
  if (number < 1 || number > LARGEST_FIELD) throw new Error(`field number ${number} at byte ${at}`);
  const wireType = WIRE_TYPES[tag.value % 8];
  if (wireType === undefined) throw new Error(`wire type ${tag.value % 8} at byte ${at}`);
  return { number, wireType, end: tag.end };
}

/** `value` is rounded above 2^53, where it is no valid tag or length. */
export function readVarint(bytes: Uint8Array, at: number): { value: number; end: number } {
  let value = 0;
  let scale = 1;
  for (let i = 0; i < 10; i++, scale *= 0x80) {
    const byte = bytes[at + i];
    if (byte === undefined) throw new Error(`the varint at byte ${at} is cut off`);
    if (i === 9 && byte > 1) break;
    value += (byte % 0x80) * scale;
    if (byte < 0x80) return { value, end: at + i + 1 };
  }
  throw new Error(`the varint at byte ${at} has more than 64 bits`);
}

function readField(bytes: Uint8Array, start: number, depth: number): RawField {
  const { number, wireType, end: afterTag } = readTag(bytes, start);
  const { value, end } = valueOf(bytes, afterTag, number, wireType, depth);
  if (end > bytes.length) throw new Error(`field ${number} at byte ${start} is cut off`);
  return { number, wireType, start, value, end };
}

function valueOf(
  bytes: Uint8Array,
  at: number,
  number: number,
  wireType: WireType,
  depth: number,
): { value: number; end: number } {
  switch (wireType) {
    case WireType.Varint:
      return { value: at, end: readVarint(bytes, at).end };
    case WireType.Bit64:
      return { value: at, end: at + 8 };
    case WireType.Bit32:
      return { value: at, end: at + 4 };
    case WireType.StartGroup:
      return { value: at, end: endOfGroup(bytes, at, number, depth) };
    case WireType.LengthDelimited: {
      const length = readVarint(bytes, at);
      return { value: length.end, end: length.end + length.value };
    }
    case WireType.EndGroup:
      throw new Error(`group ${number} ends before byte ${at} and did not begin`);
    default:
      throw new Error(`wire type ${String(wireType satisfies never)}`);
  }
}

function endOfGroup(bytes: Uint8Array, start: number, number: number, depth: number): number {
  if (depth >= MAX_DEPTH) throw new Error(`nested deeper than ${MAX_DEPTH} at byte ${start}`);
  for (let at = start; ;) {
    const tag = readTag(bytes, at);
    if (tag.wireType !== WireType.EndGroup) at = readField(bytes, at, depth + 1).end;
    else if (tag.number === number) return tag.end;
    else throw new Error(`group ${number} ends as ${tag.number} at byte ${at}`);
  }
}
