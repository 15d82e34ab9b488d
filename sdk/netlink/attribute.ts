/** Netlink attributes as bytes (linux/netlink.h, struct nlattr): u16 length, u16 type, value, padded to 4 bytes. */

/** `value` without header and padding. */
export interface Attribute {
  readonly type: number;
  readonly value: Uint8Array;
}

const HEADER = 4;
const NLA_F_NESTED = 0x8000;
/** Without NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
const NLA_TYPE_MASK = 0x3fff;

export function u8(type: number, value: number): Attribute {
  return { type, value: Uint8Array.of(value) };
}

export function u16(type: number, value: number): Attribute {
  return { type, value: Uint8Array.of(value & 0xff, value >> 8) };
}

/** Network byte order: port numbers of VXLAN. */
export function be16(type: number, value: number): Attribute {
  return { type, value: Uint8Array.of(value >> 8, value & 0xff) };
}

export function u32(type: number, value: number): Attribute {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return { type, value: bytes };
}

/** UTF-8 with a final NUL. */
export function text(type: number, value: string): Attribute {
  return { type, value: Buffer.from(`${value}\0`) };
}

export function bytes(type: number, value: Uint8Array): Attribute {
  return { type, value };
}

/** Attributes within an attribute; always with NLA_F_NESTED, which strict parsers demand. */
export function nest(type: number, children: readonly Attribute[]): Attribute {
  return { type: type | NLA_F_NESTED, value: encodeAttributes(children) };
}

export function encodeAttributes(attributes: readonly Attribute[]): Buffer {
  const size = attributes.reduce((sum, { value }) => sum + align(HEADER + value.length), 0);
  const buffer = Buffer.alloc(size);
  let offset = 0;
  for (const { type, value } of attributes) {
    buffer.writeUInt16LE(HEADER + value.length, offset);
    buffer.writeUInt16LE(type, offset + 2);
    buffer.set(value, offset + HEADER);
    offset += align(HEADER + value.length);
  }
  return buffer;
}

/** In order, for lists of nests; a truncated last attribute ends the list. */
export function listAttributes(buffer: Buffer): { type: number; value: Buffer }[] {
  const found: { type: number; value: Buffer }[] = [];
  for (let offset = 0; offset + HEADER <= buffer.length;) {
    const length = buffer.readUInt16LE(offset);
    if (length < HEADER || offset + length > buffer.length) break;
    const type = buffer.readUInt16LE(offset + 2) & NLA_TYPE_MASK;
    found.push({ type, value: buffer.subarray(offset + HEADER, offset + length) });
    offset += align(length);
  }
  return found;
}

/** By type; a type that comes twice keeps its last value. Types that nobody asks for are ignored. */
export interface AttributeMap {
  has(type: number): boolean;
  u8(type: number): number | undefined;
  u16(type: number): number | undefined;
  be16(type: number): number | undefined;
  u32(type: number): number | undefined;
  s32(type: number): number | undefined;
  text(type: number): string | undefined;
  bytes(type: number): Buffer | undefined;
  /** Empty when absent. */
  nest(type: number): AttributeMap;
}

export function decodeAttributes(buffer: Buffer): AttributeMap {
  const values = new Map(listAttributes(buffer).map(({ type, value }) => [type, value]));
  const read = <T>(type: number, size: number, take: (value: Buffer) => T): T | undefined => {
    const value = values.get(type);
    return value === undefined || value.length < size ? undefined : take(value);
  };
  return {
    has: (type) => values.has(type),
    u8: (type) => read(type, 1, (value) => value.readUInt8()),
    u16: (type) => read(type, 2, (value) => value.readUInt16LE()),
    be16: (type) => read(type, 2, (value) => value.readUInt16BE()),
    u32: (type) => read(type, 4, (value) => value.readUInt32LE()),
    s32: (type) => read(type, 4, (value) => value.readInt32LE()),
    text: (type) => read(type, 0, (value) => value.toString("utf8").replace(/\0.*$/s, "")),
    bytes: (type) => values.get(type),
    nest: (type) => decodeAttributes(values.get(type) ?? Buffer.alloc(0)),
  };
}

function align(length: number): number {
  return (length + 3) & ~3;
}
