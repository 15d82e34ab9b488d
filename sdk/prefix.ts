/** IP addresses and prefixes as numbers: reading, writing, arithmetic. Pure (RFC 4291 §2.2 and §2.3, RFC 5952). */

export type Family = 4 | 6;

export interface IpAddress {
  readonly family: Family;
  /** 32 or 128 bits. */
  readonly address: bigint;
}

/** An address with a prefix length; bits behind the length are kept. */
export interface Prefix extends IpAddress {
  readonly length: number;
}

/** Addresses from `first` to `last`, both included. */
export interface IpRange {
  readonly family: Family;
  readonly first: bigint;
  readonly last: bigint;
}

export function bitsOf(family: Family): number {
  return family === 4 ? 32 : 128;
}

/**
 * Undefined for anything but one address: leading zeros, zones and prefix lengths are refused.
 * An IPv4-mapped IPv6 address (`::ffff:10.0.0.1`) is the IPv4 address.
 */
export function parseIp(text: string): IpAddress | undefined {
  const ip = parseIpAsWritten(text);
  return ip !== undefined && isIpv4Mapped(ip) ? { family: 4, address: ip.address & 0xffff_ffffn } : ip;
}

/** The same, but IPv4-mapped ones are IPv6: for texts that stand for bytes. */
export function parseIpAsWritten(text: string): IpAddress | undefined {
  const family = text.includes(":") ? 6 : 4;
  const address = family === 6 ? parseIpv6(text) : parseIpv4(text);
  return address === undefined ? undefined : { family, address };
}

export function isIpv4Mapped({ family, address }: IpAddress): boolean {
  return family === 6 && address >> 32n === 0xffffn;
}

function parseIpv4(text: string): bigint | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let address = 0;
  for (const part of parts) {
    if (!/^(?:0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return undefined;
    address = address * 256 + Number(part);
  }
  return BigInt(address);
}

function parseIpv6(text: string): bigint | undefined {
  const halves = text.split("::");
  const [head, tail] = halves.map((half, i) => groupsOf(half, i === halves.length - 1));
  if (halves.length > 2 || head === undefined) return undefined;
  if (tail === undefined) return head.length === 8 ? join(head) : undefined;
  const zeros = 8 - head.length - tail.length;
  return zeros < 1 ? undefined : join([...head, ...Array<number>(zeros).fill(0), ...tail]);
}

/** Groups of 16 bits, at the end possibly 32 bits as dotted IPv4; too many groups when one is malformed. */
function groupsOf(half: string, isEnd: boolean): readonly number[] {
  if (half === "") return [];
  const parts = half.split(":");
  return parts.flatMap((part, i) => {
    if (/^[0-9A-Fa-f]{1,4}$/.test(part)) return [Number.parseInt(part, 16)];
    const dotted = isEnd && i === parts.length - 1 ? parseIpv4(part) : undefined;
    return dotted === undefined ? MALFORMED : [Number(dotted >> 16n), Number(dotted & 0xffffn)];
  });
}

const MALFORMED: readonly number[] = Array<number>(9).fill(0);

function join(groups: readonly number[]): bigint {
  return BigInt(`0x${groups.map((group) => group.toString(16).padStart(4, "0")).join("")}`);
}

/** `address/length`; undefined when it is none. An address without length is none. */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.lastIndexOf("/");
  const digits = text.slice(slash + 1);
  const address = parseIpAsWritten(text.slice(0, Math.max(0, slash)));
  if (address === undefined || !/^[0-9]{1,3}$/.test(digits)) return undefined;
  const length = Number(digits);
  return length > bitsOf(address.family) ? undefined : { ...address, length };
}

/** Of a text that is known to be one. Throws. */
export function prefixOf(text: string): Prefix {
  const prefix = parsePrefix(text);
  if (prefix === undefined) throw new Error(`${JSON.stringify(text)} is no prefix`);
  return prefix;
}

export function formatAddress({ family, address }: IpAddress): string {
  return family === 4 ? formatIpv4(address) : formatIpv6(address);
}

function formatIpv4(address: bigint): string {
  const bits = Number(address);
  return `${bits >>> 24}.${(bits >>> 16) & 0xff}.${(bits >>> 8) & 0xff}.${bits & 0xff}`;
}

const GROUPS = [0, 1, 2, 3, 4, 5, 6, 7];

/** The longest run of at least two zero groups, the first of several, becomes `::` (RFC 5952 §4.2). */
function formatIpv6(address: bigint): string {
  const digits = address.toString(16).padStart(32, "0");
  const groups = GROUPS.map((i) => Number.parseInt(digits.slice(4 * i, 4 * i + 4), 16));
  let [start, longest] = [0, 1];
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (groups[end] === 0) end++;
    if (end - i > longest) [start, longest] = [i, end - i];
  }
  const hex = (from: number, to: number) =>
    groups
      .slice(from, to)
      .map((group) => group.toString(16))
      .join(":");
  return longest > 1 ? `${hex(0, start)}::${hex(start + longest, 8)}` : hex(0, 8);
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatAddress(prefix)}/${prefix.length}`;
}

/** `/32` or `/128` around one address. */
export function hostPrefix({ family, address }: IpAddress): Prefix {
  return { family, address, length: bitsOf(family) };
}

/** Bits behind the length cleared. */
export function networkOf({ family, address, length }: Prefix): Prefix {
  const hostBits = BigInt(bitsOf(family) - length);
  return { family, address: (address >> hostBits) << hostBits, length };
}

export function isSameAddress(a: IpAddress, b: IpAddress): boolean {
  return a.family === b.family && a.address === b.address;
}

/** True when the address is one of the prefix's network. */
export function isInside({ family, address }: IpAddress, prefix: Prefix): boolean {
  if (family !== prefix.family) return false;
  const hostBits = BigInt(bitsOf(family) - prefix.length);
  return address >> hostBits === prefix.address >> hostBits;
}

/** All addresses of the prefix, network and broadcast addresses included. */
export function rangeOf(prefix: Prefix): IpRange {
  const { family, address: first, length } = networkOf(prefix);
  return { family, first, last: first + (1n << BigInt(bitsOf(family) - length)) - 1n };
}

export function contains(range: IpRange, { family, address }: IpAddress): boolean {
  return family === range.family && range.first <= address && address <= range.last;
}

export function overlaps(a: IpRange, b: IpRange): boolean {
  return a.family === b.family && a.first <= b.last && b.first <= a.last;
}

/** The fewest prefixes that together are the range, in order. */
export function prefixesOf({ family, first, last }: IpRange): readonly Prefix[] {
  const prefixes: Prefix[] = [];
  for (let address = first; address <= last;) {
    let bits = 0n;
    while (bits < BigInt(bitsOf(family)) && fits(address, bits + 1n, last)) bits++;
    prefixes.push({ family, address, length: bitsOf(family) - Number(bits) });
    address += 1n << bits;
  }
  return prefixes;
}

function fits(address: bigint, bits: bigint, last: bigint): boolean {
  const size = 1n << bits;
  return (address & (size - 1n)) === 0n && address + size - 1n <= last;
}
