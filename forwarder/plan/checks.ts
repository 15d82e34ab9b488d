/** The gate where texts of a peer become values for the kernel. Pure; all throw INVALID_ARGUMENT that names the value. */
import { kindOf } from "../../sdk/address-kind.ts";
import { NsmError } from "../../sdk/errors.ts";
import { parseMac } from "../../sdk/netlink/ip.ts";
import {
  formatAddress,
  formatPrefix,
  isIpv4Mapped,
  networkOf,
  parseIpAsWritten,
  parsePrefix,
} from "../../sdk/prefix.ts";
import type { IpAddress, Prefix } from "../../sdk/prefix.ts";

export function checkAddress(text: string): Prefix {
  const prefix = readPrefix(text);
  if (prefix === undefined)
    throw bad("prefix", text, "expected an address with its length, such as 10.0.0.1/32");
  checkUse(prefix, text);
  return prefix;
}

export function checkRoutePrefix(text: string): Prefix {
  const prefix = readPrefix(text);
  if (prefix === undefined) throw bad("prefix", text, "expected a prefix such as 10.0.0.0/8 or ::/0");
  if (kindOf(prefix) === "loopback") throw bad("prefix", text, "loopback is never routed to a wire");
  return networkOf(prefix);
}

/** The canonical text. */
export function checkNextHop(text: string, prefix: Prefix): string {
  const ip = checkIp(text);
  if (ip.family !== prefix.family)
    throw bad("address", text, `next hop of ${formatPrefix(prefix)} has the same address family`);
  return formatAddress(ip);
}

export function checkIp(text: string): IpAddress {
  const ip = readIp(text);
  if (ip === undefined) throw bad("address", text, "expected an IP address");
  checkUse(ip, text);
  return ip;
}

function checkUse(ip: IpAddress, text: string): void {
  const kind = kindOf(ip);
  if (["unspecified", "loopback", "multicast", "broadcast"].includes(kind))
    throw bad("address", text, `a ${kind} address belongs to no interface`);
}

export function checkTunnelIp(text: string): IpAddress {
  const ip = readIp(text);
  if (ip === undefined || ["unspecified", "multicast", "broadcast"].includes(kindOf(ip)))
    throw bad("tunnel", text, "expected the IP address of a node");
  return ip;
}

/** Stricter than elsewhere: IPv4 addresses in IPv6 clothes and lengths with zeros before them are none. */
export function readPrefix(text: string): Prefix | undefined {
  const prefix = parsePrefix(text);
  return prefix === undefined || isIpv4Mapped(prefix) || /\/0\d/.test(text) ? undefined : prefix;
}

function readIp(text: string): IpAddress | undefined {
  const ip = parseIpAsWritten(text);
  return ip === undefined || isIpv4Mapped(ip) ? undefined : ip;
}

export function checkMac(text: string): string {
  const mac = parseMac(text);
  if (mac === undefined) throw bad("mac", text, "expected a unicast address such as 02:00:00:00:00:01");
  return mac;
}

export function checkPort(port: number): number {
  if (Number.isInteger(port) && port > 0 && port <= 65535) return port;
  throw bad("tunnel", port, "a UDP port is 1 to 65535");
}

/** RFC 791 demands 68 bytes, RFC 8200 1280. */
export function checkMtu(mtu: number, ipv6: boolean): number {
  const least = ipv6 ? 1280 : 68;
  if (mtu === 0 || (Number.isInteger(mtu) && mtu >= least && mtu <= 65535)) return mtu;
  throw bad("mtu", mtu, `expected 0 (default) or ${least} to 65535`);
}

export function bad(what: string, value: string | number, expected: string): NsmError {
  const shown = JSON.stringify(typeof value === "string" ? value.slice(0, 80) : value);
  return new NsmError("INVALID_ARGUMENT", `bad-${what}`, `${what} ${shown} is not usable: ${expected}`);
}
