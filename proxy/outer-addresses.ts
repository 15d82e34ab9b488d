/** By which address a node is reached from other domains (docs/protocol.md, "Domains"). */
import * as z from "zod";
import { kindOf } from "../sdk/address-kind.ts";
import { bitsOf, formatAddress, isInside, networkOf, parseIp, parsePrefix, prefixOf } from "../sdk/prefix.ts";
import type { IpAddress, Prefix } from "../sdk/prefix.ts";
import { parseYamlAs } from "../sdk/yaml.ts";

/** Of nodes or whole networks of them, which are translated one to one. */
export interface OuterAddresses {
  /** In canonical form; undefined for an address that is not among them. */
  get(inner: string): string | undefined;
}

export const NO_OUTER_ADDRESSES: OuterAddresses = { get: () => undefined };

const place = z
  .string()
  .refine((text) => prefixAt(text) !== undefined, { error: "is no address or network" });
const Places = z.record(place, place).nullable();

/**
 * `172.18.0.2: 203.0.113.2`, an address or network (`192.0.2.0/24: 198.51.100.0/24`) a line; the longest that fits counts.
 * Throws INVALID_ARGUMENT `bad-yaml`.
 */
export function parseOuterAddresses(text: string): OuterAddresses {
  const Networks = Places.transform((entries, ctx) =>
    Object.entries(entries ?? {}).flatMap(([from, to]) => {
      const [inner, outer] = [prefixAt(from), prefixAt(to)];
      if (inner === undefined || outer === undefined) return [];
      const isHost = inner.length === bitsOf(inner.family) && outer.length === bitsOf(outer.family);
      if (isHost || (inner.family === outer.family && inner.length === outer.length))
        return [{ inner, outer }];
      ctx.addIssue(`${from}: ${to} are no two networks of one size`);
      return [];
    }),
  );
  const networks = parseYamlAs(text, Networks).toSorted((a, b) => b.inner.length - a.inner.length);
  return {
    get(address) {
      const ip = parseIp(address);
      const found = ip && networks.find(({ inner }) => isInside(ip, inner));
      if (ip === undefined || found === undefined) return undefined;
      const { inner, outer } = found;
      const host = ip.address - inner.address;
      return formatAddress({ family: outer.family, address: outer.address + host });
    },
  };
}

function prefixAt(text: string): Prefix | undefined {
  const ip = parseIp(text);
  const prefix = ip === undefined ? parsePrefix(text) : { ...ip, length: bitsOf(ip.family) };
  return prefix && networkOf(prefix);
}

/** What is known beside the file. */
export interface OuterAddressOptions {
  readonly file: () => OuterAddresses;
  /** Of all nodes that nothing else is said of. */
  readonly all?: string | undefined;
}

/** `domain`: the one that asks, or is asked; undefined when its name is not known. */
export type OuterAddress = (inner: string, domain?: string) => string;

/** The first that is known: the file, the address of all, where the linked domain sees this one, the inner one. */
export function createOuterAddress(
  { file, all }: OuterAddressOptions,
  observed: (domain: string) => string | undefined = () => undefined,
): OuterAddress {
  return (inner, domain) => {
    const known = file().get(inner) ?? all;
    return known ?? (domain === undefined ? inner : behindGateway(inner, observed(domain)));
  };
}

/** A private address says nothing elsewhere, and a public one nothing of nodes that are public themselves. */
function behindGateway(inner: string, observed: string | undefined): string {
  const [own, seen] = [parseIp(inner), parseIp(observed ?? "")];
  if (own === undefined || seen === undefined || own.family !== seen.family) return inner;
  const isPublic = kindOf(seen) === "unicast" && !isPrivate(seen);
  return isPrivate(own) && isPublic ? formatAddress(seen) : inner;
}

/** RFC 1918, RFC 6598, RFC 4193. */
const PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"].map(prefixOf);

function isPrivate(ip: IpAddress): boolean {
  return PRIVATE.some((prefix) => isInside(ip, prefix));
}

/** Under which URL those outside reach who is at this `tcp://address:port` inside. */
export function outerUrl(url: string, outer: (inner: string) => string): string {
  return url.replace(/(?<=^tcp:\/\/)(?:\[([^\]]*)\]|[^:]+)/, (host, v6: string | undefined) => {
    const address = outer(v6 ?? host);
    return address.includes(":") ? `[${address}]` : address;
  });
}
