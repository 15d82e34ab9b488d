/** IP addresses, prefixes and MACs: strict text to canonical text and bytes (RFC 4632, RFC 4291, RFC 5952). */
import { isIP } from "node:net";
import ipaddr from "ipaddr.js";

export type Family = 4 | 6;

/** `address` and `text` are canonical, so two prefixes are the same when their texts are equal. */
export interface Prefix {
  readonly family: Family;
  readonly address: string;
  readonly length: number;
}

/** Canonical text of an address; undefined when `text` is none (zone ids and IPv4-mapped IPv6 are not accepted). */
export function parseIp(text: string): string | undefined {
  if (isIP(text) === 0 || text.includes("%")) return undefined;
  const parsed = ipaddr.parse(text);
  if (parsed instanceof ipaddr.IPv6 && parsed.isIPv4MappedAddress()) return undefined;
  return parsed.toString();
}

/** `address/length`, host bits kept; undefined when `text` is none. */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.indexOf("/");
  const address = parseIp(text.slice(0, slash));
  const digits = text.slice(slash + 1);
  if (slash < 0 || address === undefined || !/^(0|[1-9]\d{0,2})$/.test(digits)) return undefined;
  const length = Number(digits);
  const family = familyOf(address);
  return length <= (family === 4 ? 32 : 128) ? { family, address, length } : undefined;
}

export function formatPrefix({ address, length }: Prefix): string {
  return `${address}/${length}`;
}

/** The network of a prefix: host bits cleared. */
export function networkOf({ family, address, length }: Prefix): Prefix {
  const network = ipBytes(address).map(
    (byte, i) => byte & (0xff << Math.min(8, Math.max(0, 8 * (i + 1) - length))),
  );
  return { family, address: ipText(network), length };
}

export function contains(prefix: Prefix, address: string): boolean {
  if (familyOf(address) !== prefix.family) return false;
  return networkOf({ ...prefix, address }).address === networkOf(prefix).address;
}

export function familyOf(address: string): Family {
  return address.includes(":") ? 6 : 4;
}

/** Of an address that `parseIp` accepted: 4 or 16 bytes. */
export function ipBytes(address: string): Uint8Array {
  return Uint8Array.from(ipaddr.parse(address).toByteArray());
}

export function ipText(bytes: Uint8Array): string {
  return ipaddr.fromByteArray([...bytes]).toString();
}

/** What an address is for (`unicast`, `private`, `loopback`, `multicast`, ...), by ipaddr.js's table of RFC 6890. */
export function rangeOf(address: string): string {
  return ipaddr.parse(address).range();
}

/** Canonical `aa:bb:cc:dd:ee:ff`; undefined when `text` is no unicast MAC address. */
export function parseMac(text: string): string | undefined {
  if (!/^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$/.test(text)) return undefined;
  const mac = text.toLowerCase().replaceAll("-", ":");
  return Number.parseInt(mac.slice(0, 2), 16) & 1 || mac === "00:00:00:00:00:00" ? undefined : mac;
}

export function macBytes(mac: string): Uint8Array {
  return Uint8Array.from(mac.split(":"), (byte) => Number.parseInt(byte, 16));
}

export function macText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}
