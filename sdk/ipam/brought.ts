/** Which of the addresses that a client brings, from the endpoint that it had before, it keeps (docs/protocol.md, "Addresses (IPAM)"). */
import type { IPContext } from "../../api/gen/connectioncontext_pb.js";
import { contains, formatAddress, parsePrefix, rangeOf } from "../prefix.ts";
import { dropDst, dropSrc } from "./context.ts";
import { copyOf, parsePrefixes } from "./ipam.ts";
import type { Ipam } from "./ipam.ts";

/**
 * Before `inner` sees a request, addresses outside `prefixes` and those that a connection has are dropped, with the peer's
 * routes to them; `inner` adds what the connection has of it again. Throws INVALID_ARGUMENT `bad-prefix`.
 */
export function createStrict(inner: Ipam, prefixes: readonly string[]): Ipam {
  return filtered(inner, prefixes, (holder) => holder === FREE);
}

/**
 * Addresses from elsewhere stay; those within `prefixes` that another connection has are dropped: endpoints of one service often
 * have the same prefixes. Throws INVALID_ARGUMENT `bad-prefix`.
 */
export function createPolite(inner: Ipam, prefixes: readonly string[]): Ipam {
  return filtered(inner, prefixes, (holder, id) => holder === ELSEWHERE || holder === FREE || holder === id);
}

const FREE = Symbol("free");
const ELSEWHERE = Symbol("elsewhere");
/** Id of the connection that has an address, if it is one of ours and somebody has it. */
type Holder = string | typeof FREE | typeof ELSEWHERE;

function filtered(
  inner: Ipam,
  prefixes: readonly string[],
  isKept: (holder: Holder, id: string) => boolean,
): Ipam {
  const ranges = parsePrefixes(prefixes).map(rangeOf);
  const holders = new Map<string, string>();
  const held = new Map<string, readonly string[]>();

  const keyOf = (text: string): string | undefined => {
    const address = parsePrefix(text);
    if (address === undefined || !ranges.some((range) => contains(range, address))) return undefined;
    return formatAddress(address);
  };
  const holderOf = (text: string): Holder => {
    const key = keyOf(text);
    return key === undefined ? ELSEWHERE : (holders.get(key) ?? FREE);
  };
  const dropOthers = (id: string, context: IPContext) => {
    for (const text of context.srcIpAddrs) if (!isKept(holderOf(text), id)) dropSrc(context, text);
    for (const text of context.dstIpAddrs) if (!isKept(holderOf(text), id)) dropDst(context, text);
  };
  const release = (id: string) => {
    for (const key of held.get(id) ?? []) holders.delete(key);
    held.delete(id);
  };
  const hold = (id: string, context: IPContext) => {
    release(id);
    const keys = [...context.srcIpAddrs, ...context.dstIpAddrs]
      .map(keyOf)
      .filter((key) => key !== undefined)
      .filter((key) => !holders.has(key));
    for (const key of keys) holders.set(key, id);
    held.set(id, keys);
  };

  return {
    request(id, context, client) {
      const before = copyOf(context);
      dropOthers(id, context);
      try {
        const lease = inner.request(id, context, client);
        return {
          commit(answer = context) {
            lease.commit(answer);
            hold(id, answer);
          },
          rollback: () => lease.rollback(),
        };
      } catch (error) {
        Object.assign(context, before);
        throw error;
      }
    },
    close(id) {
      release(id);
      inner.close(id);
    },
  };
}
