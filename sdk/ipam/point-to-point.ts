/** A pair of addresses per connection: one for the endpoint, one for the client (docs/protocol.md, "Addresses (IPAM)"). */
import type { IPContext } from "../../api/gen/connectioncontext_pb.js";
import { contains, formatPrefix, hostPrefix, parsePrefix, rangeOf } from "../prefix.ts";
import type { IpAddress, IpRange } from "../prefix.ts";
import { addAddress, addRoute, dropDst, dropSrc } from "./context.ts";
import { copyOf, exclusionsOf, exhausted, parsePrefixes } from "./ipam.ts";
import type { Ipam } from "./ipam.ts";
import { IpPool } from "./pool.ts";

interface Pair {
  readonly pool: IpPool;
  readonly src: IpAddress;
  readonly dst: IpAddress;
}

/**
 * Prefixes are tried in order. Every address counts, also those of network and broadcast: a /31 serves one connection.
 * Throws INVALID_ARGUMENT `bad-prefix`.
 */
export function createPointToPoint(prefixes: readonly string[]): Ipam {
  const pools = parsePrefixes(prefixes).map((prefix) => new IpPool([rangeOf(prefix)]));
  const pairs = new Map<string, Pair>();
  return {
    request(id, context) {
      const excluded = exclusionsOf(context);
      const before = pairs.get(id);
      const isKept = before !== undefined && !touches(before, excluded);
      const pair = isKept ? before : replace(pools, before, context, excluded);
      if (pair === undefined) throw exhausted(prefixes, context.excludedPrefixes);
      addPair(context, pair);
      pairs.set(id, pair);
      return {
        commit() {},
        rollback() {
          if (isKept || pairs.get(id) !== pair) return;
          freePair(pair);
          if (before !== undefined && takePair(before)) pairs.set(id, before);
          else pairs.delete(id);
        },
      };
    },
    close(id) {
      const pair = pairs.get(id);
      if (pair !== undefined) freePair(pair);
      pairs.delete(id);
    },
  };
}

/** A new pair in place of `before`, whose addresses are free for it. When there is none, all stays as it was. */
function replace(
  pools: readonly IpPool[],
  before: Pair | undefined,
  context: IPContext,
  excluded: readonly IpRange[],
): Pair | undefined {
  const contextBefore = copyOf(context);
  if (before !== undefined) {
    dropPair(context, before);
    freePair(before);
  }
  const pair = recover(pools, context, excluded) ?? allocate(pools, excluded);
  if (pair === undefined && before !== undefined) {
    takePair(before);
    Object.assign(context, contextBefore);
  }
  return pair;
}

/** The addresses that the client still has from us, if a pool has both of them. */
function recover(
  pools: readonly IpPool[],
  context: IPContext,
  excluded: readonly IpRange[],
): Pair | undefined {
  for (const pool of pools) {
    const src = takeFirst(pool, context.srcIpAddrs, excluded);
    const dst = takeFirst(pool, context.dstIpAddrs, excluded);
    if (src !== undefined && dst !== undefined) return { pool, src, dst };
    for (const address of [src, dst]) if (address !== undefined) pool.free(address);
  }
  return undefined;
}

function takeFirst(
  pool: IpPool,
  addresses: readonly string[],
  excluded: readonly IpRange[],
): IpAddress | undefined {
  return addresses
    .map((text) => parsePrefix(text))
    .find((address) => address !== undefined && pool.take(address, excluded));
}

/** The lowest free address for the endpoint, the next for the client. */
function allocate(pools: readonly IpPool[], excluded: readonly IpRange[]): Pair | undefined {
  for (const pool of pools) {
    const dst = pool.takeLowest(excluded);
    const src = pool.takeLowest(excluded);
    if (dst !== undefined && src !== undefined) return { pool, src, dst };
    if (dst !== undefined) pool.free(dst);
  }
  return undefined;
}

function touches({ src, dst }: Pair, excluded: readonly IpRange[]): boolean {
  return excluded.some((range) => contains(range, src) || contains(range, dst));
}

function freePair({ pool, src, dst }: Pair): void {
  pool.free(src);
  pool.free(dst);
}

/** False, and nothing taken, unless both are free. */
function takePair({ pool, src, dst }: Pair): boolean {
  if (!pool.take(src)) return false;
  if (pool.take(dst)) return true;
  pool.free(src);
  return false;
}

function addPair(context: IPContext, pair: Pair): void {
  const [src, dst] = textsOf(pair);
  addAddress(context.srcIpAddrs, src);
  addRoute(context.srcRoutes, dst);
  addAddress(context.dstIpAddrs, dst);
  addRoute(context.dstRoutes, src);
}

function dropPair(context: IPContext, pair: Pair): void {
  const [src, dst] = textsOf(pair);
  dropSrc(context, src);
  dropDst(context, dst);
}

function textsOf({ src, dst }: Pair): readonly [string, string] {
  return [formatPrefix(hostPrefix(src)), formatPrefix(hostPrefix(dst))];
}
