/**
 * Prefixes cut out of larger ones: a small network per connection, and the extra prefixes that a client asks for
 * (docs/protocol.md, "Addresses (IPAM)"). Pure.
 */
import { IpFamily_Family } from "../../api/gen/connectioncontext_pb.js";
import type { ExtraPrefixRequest } from "../../api/gen/connectioncontext_pb.js";
import { NsmError } from "../errors.ts";
import { bitsOf, overlaps, rangeOf } from "../prefix.ts";
import type { Family, IpRange, Prefix } from "../prefix.ts";
import { exhausted, parsePrefixes } from "./ipam.ts";
import { IpPool, mergeRanges } from "./pool.ts";

export interface Extract {
  /** Addresses one and two of a network of four, with its length. */
  readonly src: Prefix;
  readonly dst: Prefix;
  /** At least the required, at most the requested number. */
  readonly requested: readonly Prefix[];
}

export interface PrefixPool {
  /**
   * Throws RESOURCE_EXHAUSTED `ipam-exhausted`; nothing is taken then.
   */
  extract(id: string, family: Family, request: ExtraPrefixRequest | undefined): Extract;
  /** Frees what the last `extract` of the connection took. Throws NOT_FOUND `unknown-connection`. */
  release(id: string): void;
  /**
   * Takes addresses out, returns those that were free.
   * Throws RESOURCE_EXHAUSTED `ipam-exhausted` when nothing would be left; nothing is taken then.
   */
  exclude(prefixes: readonly string[]): readonly Prefix[];
  /** The opposite of `exclude`. */
  releaseExcluded(prefixes: readonly string[]): void;
  /** True when some address of the prefix is free. */
  intersects(prefix: string): boolean;
  /** What is free. */
  prefixes(): readonly Prefix[];
}

/** Throws INVALID_ARGUMENT `bad-prefix`. */
export function createPrefixPool(prefixes: readonly string[]): PrefixPool {
  const pool = new IpPool(parsePrefixes(prefixes).map(rangeOf));
  const taken = new Map<string, readonly Prefix[]>();
  const cutOut = (family: Family, length: number): Prefix | undefined => {
    const found = smallestFitting(pool.prefixes(), family, length);
    if (found !== undefined) pool.remove(rangeOf(found));
    return found;
  };
  const giveBack = (cut: readonly Prefix[]) => {
    for (const prefix of cut) pool.add(rangeOf(prefix));
  };
  const cutExtra = (request: ExtraPrefixRequest | undefined): readonly Prefix[] => {
    const extra: Prefix[] = [];
    if (request === undefined) return extra;
    const family = request.addrFamily?.family === IpFamily_Family.IPV6 ? 6 : 4;
    while (extra.length < request.requestedNumber) {
      const cut = cutOut(family, request.prefixLen);
      if (cut === undefined) break;
      extra.push(cut);
    }
    if (extra.length >= request.requiredNumber) return extra;
    giveBack(extra);
    throw exhausted(prefixes, []);
  };
  return {
    extract(id, family, request) {
      const network = cutOut(family, bitsOf(family) - 2);
      if (network === undefined) throw exhausted(prefixes, []);
      try {
        const requested = cutExtra(request);
        taken.set(id, [network, ...requested]);
        const { address } = network;
        return {
          src: { ...network, address: address + 1n },
          dst: { ...network, address: address + 2n },
          requested,
        };
      } catch (error) {
        giveBack([network]);
        throw error;
      }
    },
    release(id) {
      const cut = taken.get(id);
      if (cut === undefined)
        throw new NsmError(
          "NOT_FOUND",
          "unknown-connection",
          `connection ${JSON.stringify(id)} has no prefixes`,
        );
      giveBack(cut);
      taken.delete(id);
    },
    exclude(texts) {
      const out = mergeRanges(parsePrefixes(texts).map(rangeOf));
      const free = pool.prefixes();
      const lost = out.flatMap((range) => free.flatMap((prefix) => common(rangeOf(prefix), range)));
      for (const range of lost) pool.remove(range);
      if (pool.isEmpty) {
        for (const range of lost) pool.add(range);
        throw exhausted(prefixes, texts);
      }
      return new IpPool(lost).prefixes();
    },
    releaseExcluded(texts) {
      if (texts.length > 0) giveBack(parsePrefixes(texts));
    },
    intersects(text) {
      const ranges = parsePrefixes([text]).map(rangeOf);
      return pool.prefixes().some((free) => ranges.some((range) => overlaps(rangeOf(free), range)));
    },
    prefixes: () => pool.prefixes(),
  };
}

/** The beginning of the smallest free prefix that is large enough, the first of several. */
function smallestFitting(free: readonly Prefix[], family: Family, length: number): Prefix | undefined {
  let best: Prefix | undefined;
  for (const prefix of free) {
    if (prefix.family === family && prefix.length <= length && prefix.length > (best?.length ?? -1))
      best = prefix;
  }
  return best === undefined ? undefined : { ...best, length };
}

function common(a: IpRange, b: IpRange): readonly IpRange[] {
  if (!overlaps(a, b)) return [];
  const { family } = a;
  return [{ family, first: a.first > b.first ? a.first : b.first, last: a.last < b.last ? a.last : b.last }];
}
