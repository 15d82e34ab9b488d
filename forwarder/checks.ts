/** The gate where texts of a peer become values for the kernel. Pure; all throw INVALID_ARGUMENT that names the value. */
import { NsmError } from "../sdk/errors.ts";
import {
  familyOf,
  formatPrefix,
  networkOf,
  parseIp,
  parseMac,
  parsePrefix,
  rangeOf,
} from "../sdk/netlink/ip.ts";
import type { Family, Prefix } from "../sdk/netlink/ip.ts";

export function checkAddress(text: string): Prefix {
  const prefix = parsePrefix(text);
  if (prefix === undefined)
    throw bad("prefix", text, "expected an address with its length, such as 10.0.0.1/32");
  checkUse(prefix.address, text);
  return prefix;
}

export function checkRoutePrefix(text: string): Prefix {
  const prefix = parsePrefix(text);
  if (prefix === undefined) throw bad("prefix", text, "expected a prefix such as 10.0.0.0/8 or ::/0");
  if (rangeOf(prefix.address) === "loopback") throw bad("prefix", text, "loopback is never routed to a wire");
  return networkOf(prefix);
}

export function checkNextHop(text: string, prefix: Prefix): string {
  const ip = checkIp(text);
  const family: Family = familyOf(ip);
  if (family !== prefix.family)
    throw bad("address", text, `next hop of ${formatPrefix(prefix)} has the same address family`);
  return ip;
}

export function checkIp(text: string): string {
  const ip = parseIp(text);
  if (ip === undefined) throw bad("address", text, "expected an IP address");
  checkUse(ip, text);
  return ip;
}

function checkUse(ip: string, text: string): void {
  if (["unspecified", "loopback", "multicast", "broadcast"].includes(rangeOf(ip)))
    throw bad("address", text, `a ${rangeOf(ip)} address belongs to no interface`);
}

export function checkTunnelIp(text: string): string {
  const ip = parseIp(text);
  if (ip === undefined || ["unspecified", "multicast", "broadcast"].includes(rangeOf(ip)))
    throw bad("tunnel", text, "expected the IP address of a node");
  return ip;
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
