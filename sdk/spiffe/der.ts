/**
 * Reads DER (ITU-T X.690, §10): definite, minimal lengths and low tag numbers only; anything else throws.
 *
 * Just enough for certificates: where a BER parser would be lenient, two readers of one certificate could disagree.
 */
import { NsmError } from "../errors.ts";

/** Tags that occur in certificates. */
export const Tag = {
  BOOLEAN: 0x01,
  INTEGER: 0x02,
  BIT_STRING: 0x03,
  OCTET_STRING: 0x04,
  OID: 0x06,
  SEQUENCE: 0x30,
} as const;

export interface DerValue {
  readonly tag: number;
  /** Tag, length and content. */
  readonly raw: Uint8Array;
  readonly content: Uint8Array;
}

/** The value at `offset`, within `bytes`. Throws INVALID_ARGUMENT `bad-der`. */
export function readDer(bytes: Uint8Array, offset = 0): DerValue {
  const tag = byteAt(bytes, offset);
  if ((tag & 0x1f) === 0x1f) throw bad("a tag number above 30", offset);
  const first = byteAt(bytes, offset + 1);
  let length = first;
  let start = offset + 2;
  if (first >= 0x80) {
    const count = first & 0x7f;
    if (count === 0 || count > 4) throw bad("an indefinite or huge length", offset);
    length = 0;
    for (let i = 0; i < count; i++) length = length * 256 + byteAt(bytes, start + i);
    if (length < 0x80 || byteAt(bytes, start) === 0) throw bad("a length that is not minimal", offset);
    start += count;
  }
  const end = start + length;
  if (end > bytes.length) throw bad("a value that goes beyond its end", offset);
  return { tag, raw: bytes.subarray(offset, end), content: bytes.subarray(start, end) };
}

/** The values that follow one another in `bytes`, nothing left over. Throws INVALID_ARGUMENT `bad-der`. */
export function readDerSequence(bytes: Uint8Array): DerValue[] {
  const values: DerValue[] = [];
  for (let offset = 0; offset < bytes.length;) {
    const value = readDer(bytes, offset);
    values.push(value);
    offset += value.raw.length;
  }
  return values;
}

/** The one value that `bytes` is. Throws INVALID_ARGUMENT `bad-der`, also for trailing bytes. */
export function readDerWhole(bytes: Uint8Array): DerValue {
  const value = readDer(bytes);
  if (value.raw.length !== bytes.length) throw bad("bytes after the value", value.raw.length);
  return value;
}

/** The members of a value that must have this tag. Throws INVALID_ARGUMENT `bad-der`. */
export function membersOf(value: DerValue | undefined, tag: number): DerValue[] {
  return readDerSequence(contentOf(value, tag));
}

/** The content of a value that must have this tag. Throws INVALID_ARGUMENT `bad-der`. */
export function contentOf(value: DerValue | undefined, tag: number): Uint8Array {
  if (value === undefined) throw bad(`no value where tag ${tag} is expected`, 0);
  if (value.tag !== tag) throw bad(`tag ${value.tag} where ${tag} is expected`, 0);
  return value.content;
}

/** FALSE is 00, TRUE is ff; nothing else is DER. */
export function readBoolean(value: DerValue): boolean {
  const content = contentOf(value, Tag.BOOLEAN);
  if (content.length !== 1 || (content[0] !== 0 && content[0] !== 0xff)) throw bad("a bad BOOLEAN", 0);
  return content[0] === 0xff;
}

/** An INTEGER from 0 to 2^31-1, minimal. */
export function readSmallInteger(value: DerValue): number {
  const content = contentOf(value, Tag.INTEGER);
  const [first = 0x80, second = 0x80] = content;
  const padded = content.length > 1 && first === 0 && second < 0x80;
  if (content.length > 4 || first >= 0x80 || padded) throw bad("an INTEGER out of range", 0);
  return content.reduce((number, byte) => number * 256 + byte, 0);
}

/** Bits of a BIT STRING as a set of their numbers (bit 0 is the first). */
export function readBits(value: DerValue): ReadonlySet<number> {
  const [unused = 8, ...bytes] = contentOf(value, Tag.BIT_STRING);
  const last = bytes.at(-1) ?? 0;
  if (unused > 7 || (bytes.length === 0 && unused > 0) || (last & ((1 << unused) - 1)) !== 0)
    throw bad("a bad BIT STRING", 0);
  const bits = new Set<number>();
  bytes.forEach((byte, i) => {
    for (let bit = 0; bit < 8; bit++) if (byte & (0x80 >> bit)) bits.add(i * 8 + bit);
  });
  return bits;
}

/** An OBJECT IDENTIFIER in dotted form. */
export function readOid(value: DerValue): string {
  const content = contentOf(value, Tag.OID);
  const arcs: number[] = [];
  let arc = 0;
  let isFresh = true;
  for (const byte of content) {
    if (isFresh && byte === 0x80) throw bad("an OID arc that is not minimal", 0);
    arc = arc * 128 + (byte & 0x7f);
    if (!Number.isSafeInteger(arc)) throw bad("an OID arc that is too large", 0);
    isFresh = byte < 0x80;
    if (isFresh) {
      arcs.push(arc);
      arc = 0;
    }
  }
  const [first] = arcs;
  if (first === undefined || !isFresh) throw bad("a cut OID", 0);
  const root = Math.min(2, Math.floor(first / 40));
  return [root, first - root * 40, ...arcs.slice(1)].join(".");
}

function byteAt(bytes: Uint8Array, offset: number): number {
  const byte = bytes[offset];
  if (byte === undefined) throw bad("it ends too early", offset);
  return byte;
}

function bad(what: string, offset: number): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-der", `DER has ${what} (offset ${offset})`);
}
