/** One address per client in a common network; the endpoint keeps one that it does not announce (docs/protocol.md). */
import { contains, formatPrefix, rangeOf } from "../prefix.ts";
import type { IpRange, Prefix } from "../prefix.ts";
import { addAddress } from "./context.ts";
import { exclusionsOf, exhausted, parsePrefixes } from "./ipam.ts";
import type { Ipam } from "./ipam.ts";
import { IpPool } from "./pool.ts";

interface Network {
  readonly pool: IpPool;
  readonly length: number;
  /** True once the endpoint has its own address. */
  isOpen: boolean;
}

interface Lent {
  readonly pool: IpPool;
  /** With the length of the network. */
  readonly prefix: Prefix;
}

/** Prefixes are tried in order. Throws INVALID_ARGUMENT `bad-prefix`. */
export function createSinglePoint(prefixes: readonly string[]): Ipam {
  const networks = parsePrefixes(prefixes).map(createNetwork);
  const lent = new Map<string, Lent>();
  return {
    request(id, context) {
      const excluded = exclusionsOf(context);
      const before = lent.get(id);
      const isKept = before !== undefined && !excluded.some((range) => contains(range, before.prefix));
      const now = isKept ? before : lend(networks, excluded);
      if (now === undefined) throw exhausted(prefixes, context.excludedPrefixes);
      if (before !== undefined && !isKept) {
        before.pool.free(before.prefix);
        const old = formatPrefix(before.prefix);
        context.srcIpAddrs = context.srcIpAddrs.filter((text) => text !== old);
      }
      addAddress(context.srcIpAddrs, formatPrefix(now.prefix));
      lent.set(id, now);
      return {
        commit() {},
        rollback() {
          if (isKept || lent.get(id) !== now) return;
          now.pool.free(now.prefix);
          if (before?.pool.take(before.prefix) === true) lent.set(id, before);
          else lent.delete(id);
        },
      };
    },
    close(id) {
      const now = lent.get(id);
      now?.pool.free(now.prefix);
      lent.delete(id);
    },
  };
}

/** Without the broadcast address of IPv4. */
function createNetwork(prefix: Prefix): Network {
  const range = rangeOf(prefix);
  const pool = new IpPool([range]);
  if (range.family === 4) pool.remove({ ...range, first: range.last });
  return { pool, length: prefix.length, isOpen: false };
}

/** The first client of a network leaves the lowest address to the endpoint. */
function lend(networks: readonly Network[], excluded: readonly IpRange[]): Lent | undefined {
  for (const network of networks) {
    const { pool, length } = network;
    network.isOpen ||= pool.takeLowest(excluded) !== undefined;
    const address = pool.takeLowest(excluded);
    if (address !== undefined) return { pool, prefix: { ...address, length } };
  }
  return undefined;
}
