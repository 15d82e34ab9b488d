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
  /** Addresses of ours that the client brought and goes on using, though they make no pair: nobody else may get them. */
  readonly reserved: readonly Reserved[];
}

interface Reserved {
  readonly pool: IpPool;
  readonly address: IpAddress;
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
  const reserved: Reserved[] = [];
  const pair = recover(pools, context, excluded, reserved) ?? allocate(pools, excluded, reserved);
  if (pair !== undefined) return pair;
  freeReserved(reserved);
  if (before !== undefined) {
    takePair(before);
    Object.assign(context, contextBefore);
  }
  return undefined;
}

/** The addresses that the client still has from us, if a pool has both of them; a single one is `reserved`. */
function recover(
  pools: readonly IpPool[],
  context: IPContext,
  excluded: readonly IpRange[],
  reserved: Reserved[],
): Pair | undefined {
  if (context.srcIpAddrs.length === 0 || context.dstIpAddrs.length === 0) return undefined;
  for (const pool of pools) {
    const src = takeFirst(pool, context.srcIpAddrs, excluded);
    const dst = takeFirst(pool, context.dstIpAddrs, excluded);
    if (src !== undefined && dst !== undefined) return { pool, src, dst, reserved };
    const single = src ?? dst;
    if (single !== undefined) reserved.push({ pool, address: single });
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
function allocate(
  pools: readonly IpPool[],
  excluded: readonly IpRange[],
  reserved: readonly Reserved[],
): Pair | undefined {
  for (const pool of pools) {
    const [dst, src] = pool.takeLowestTwo(excluded) ?? [];
    if (dst !== undefined && src !== undefined) return { pool, src, dst, reserved };
  }
  return undefined;
}

function touches({ src, dst }: Pair, excluded: readonly IpRange[]): boolean {
  return excluded.some((range) => contains(range, src) || contains(range, dst));
}

function freePair({ pool, src, dst, reserved }: Pair): void {
  pool.free(src);
  pool.free(dst);
  freeReserved(reserved);
}

function freeReserved(reserved: readonly Reserved[]): void {
  for (const { pool, address } of reserved) pool.free(address);
}

/** Takes back what was freed; false, and nothing taken, unless all of it is still free. */
function takePair({ pool, src, dst, reserved }: Pair): boolean {
  const wanted = [{ pool, address: src }, { pool, address: dst }, ...reserved];
  const lost = wanted.findIndex(({ pool, address }) => !pool.take(address));
  if (lost >= 0) freeReserved(wanted.slice(0, lost));
  return lost < 0;
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
