/** Several pools for one endpoint, as `NSM_CIDR_PREFIX` lists them (docs/protocol.md, "Addresses (IPAM)"). */
import { NsmError } from "../errors.ts";
import { copyOf, parsePrefixes } from "./ipam.ts";
import type { Ipam, Lease } from "./ipam.ts";
import { createPointToPoint } from "./point-to-point.ts";
import { createPolite, createStrict } from "./brought.ts";

/**
 * Groups of prefixes: `[a,b],[c],d`. Each group gives a connection one pair of addresses; inside a group the prefixes are
 * alternatives. Throws INVALID_ARGUMENT `bad-prefix-groups` or `bad-prefix`.
 */
export function parsePrefixGroups(text: string): readonly (readonly string[])[] {
  const value = text.replaceAll(/\s/g, "");
  const items = value.match(/\[[^[\]]*\]|[^,[\]]+/g) ?? [];
  if (value === "" || items.join(",") !== value)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-prefix-groups",
      `prefix groups ${JSON.stringify(text)}: expected a/8,b/8 or [a/8,b/8],[c/8]`,
    );
  const groups = items.map((item) => item.replaceAll(/[[\]]/g, "").split(","));
  for (const group of groups) parsePrefixes(group);
  return groups;
}

/**
 * Point-to-point pools for the groups. `strict`: addresses that a client brings from elsewhere are dropped; else they stay
 * beside ours, but for those that another connection has from here.
 */
export function createIpam(groups: readonly (readonly string[])[], policy: "polite" | "strict"): Ipam {
  const ipam = createGroup(groups.map(createPointToPoint));
  if (groups.length === 0) return ipam; // it gives nothing, so nobody has anything from it
  return policy === "strict" ? createStrict(ipam, groups.flat()) : createPolite(ipam, groups.flat());
}

/** Every part serves every connection: one address pair from each, in order (dual stack). */
export function createGroup(parts: readonly Ipam[]): Ipam {
  return {
    request(id, ipContext, client) {
      const before = copyOf(ipContext);
      const leases: Lease[] = [];
      const rollback = () => {
        for (const lease of leases.reverse()) lease.rollback();
      };
      try {
        for (const part of parts) leases.push(part.request(id, ipContext, client));
      } catch (error) {
        rollback();
        Object.assign(ipContext, before);
        throw error;
      }
      return {
        commit(answer = ipContext) {
          for (const lease of leases.reverse()) lease.commit(answer);
        },
        rollback,
      };
    },
    close(id) {
      for (const part of parts) part.close(id);
    },
  };
}
