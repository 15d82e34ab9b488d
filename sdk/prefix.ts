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
  if (!text.includes(":")) return ip(4, parseIpv4(text));
  const address = parseIpv6(text);
  if (address === undefined) return undefined;
  return address >> 32n === 0xffffn ? ip(4, address & 0xffff_ffffn) : ip(6, address);
}

function ip(family: Family, address: bigint | undefined): IpAddress | undefined {
  return address === undefined ? undefined : { family, address };
}

function parseIpv4(text: string): bigint | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let address = 0n;
  for (const part of parts) {
    if (!/^(?:0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return undefined;
    address = (address << 8n) | BigInt(part);
  }
  return address;
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
  return groups.reduce((address, group) => (address << 16n) | BigInt(group), 0n);
}

/** `address/length`; undefined when it is none. An address without length is none. */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.lastIndexOf("/");
  const digits = text.slice(slash + 1);
  const host = text.slice(0, Math.max(0, slash));
  const address = host.includes(":") ? ip(6, parseIpv6(host)) : ip(4, parseIpv4(host));
  if (address === undefined || !/^[0-9]{1,3}$/.test(digits)) return undefined;
  const length = Number(digits);
  return length > bitsOf(address.family) ? undefined : { ...address, length };
}

export function formatAddress({ family, address }: IpAddress): string {
  return family === 4 ? formatIpv4(address) : formatIpv6(address);
}

function formatIpv4(address: bigint): string {
  return [24n, 16n, 8n, 0n].map((shift) => (address >> shift) & 0xffn).join(".");
}

/** The longest run of at least two zero groups, the first of several, becomes `::` (RFC 5952 §4.2). */
function formatIpv6(address: bigint): string {
  const groups = Array.from({ length: 8 }, (_, i) => Number((address >> BigInt(112 - 16 * i)) & 0xffffn));
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

/** All addresses of the prefix, network and broadcast addresses included. */
export function rangeOf({ family, address, length }: Prefix): IpRange {
  const hostBits = BigInt(bitsOf(family) - length);
  const first = (address >> hostBits) << hostBits;
  return { family, first, last: first + (1n << hostBits) - 1n };
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
