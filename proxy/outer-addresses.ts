/** The file that says by which address a node is reached from other domains (docs/protocol.md, "Domains"). */
import * as z from "zod";
import { formatAddress, parseIp } from "../sdk/prefix.ts";
import { parseYamlAs } from "../sdk/yaml.ts";

const ip = z.string().refine((text) => parseIp(text) !== undefined, { error: "is no address" });
const Addresses = z.record(ip, ip).nullable();

/** From inner to outer address, both in canonical form. Throws INVALID_ARGUMENT `bad-yaml`. */
export function parseOuterAddresses(text: string): ReadonlyMap<string, string> {
  const canonical = (address: string) => {
    const parsed = parseIp(address);
    return parsed === undefined ? address : formatAddress(parsed);
  };
  const pairs = Object.entries(parseYamlAs(text, Addresses) ?? {});
  return new Map(pairs.map(([inner, outer]) => [canonical(inner), canonical(outer)]));
}

/** Under which URL those outside reach who is at this `tcp://address:port` inside. */
export function outerUrl(url: string, outer: (inner: string) => string): string {
  return url.replace(/(?<=^tcp:\/\/)(?:\[([^\]]*)\]|[^:]+)/, (host, v6: string | undefined) => {
    const address = outer(v6 ?? host);
    return address.includes(":") ? `[${address}]` : address;
  });
}
