/** What an IP address is for (RFC 6890, RFC 4291 §2.4, RFC 4193). Pure. */
import { isInside, prefixOf } from "./prefix.ts";
import type { IpAddress } from "./prefix.ts";

export type AddressKind =
  "broadcast" | "linkLocal" | "loopback" | "multicast" | "unicast" | "uniqueLocal" | "unspecified";

const KINDS = (
  [
    ["0.0.0.0/8", "unspecified"],
    ["127.0.0.0/8", "loopback"],
    ["169.254.0.0/16", "linkLocal"],
    ["224.0.0.0/4", "multicast"],
    ["255.255.255.255/32", "broadcast"],
    ["::/128", "unspecified"],
    ["::1/128", "loopback"],
    ["fc00::/7", "uniqueLocal"],
    ["fe80::/10", "linkLocal"],
    ["ff00::/8", "multicast"],
  ] as const
).map(([text, kind]) => ({ prefix: prefixOf(text), kind }));

/** `unicast` for all that have no use of their own, private IPv4 networks among them. */
export function kindOf(ip: IpAddress): AddressKind {
  return KINDS.find(({ prefix }) => isInside(ip, prefix))?.kind ?? "unicast";
}
