/** An Ipam whose clients keep no address from elsewhere, such as from the endpoint that they had before (docs/protocol.md). */
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
  const ranges = parsePrefixes(prefixes).map(rangeOf);
  const holders = new Set<string>();
  const held = new Map<string, readonly string[]>();

  const keyOf = (text: string): string | undefined => {
    const address = parsePrefix(text);
    if (address === undefined || !ranges.some((range) => contains(range, address))) return undefined;
    return formatAddress(address);
  };
  const mayKeep = (text: string): boolean => {
    const key = keyOf(text);
    return key !== undefined && !holders.has(key);
  };
  const dropTaken = (context: IPContext) => {
    for (const text of context.srcIpAddrs) if (!mayKeep(text)) dropSrc(context, text);
    for (const text of context.dstIpAddrs) if (!mayKeep(text)) dropDst(context, text);
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
    for (const key of keys) holders.add(key);
    held.set(id, keys);
  };

  return {
    request(id, context, client) {
      const before = copyOf(context);
      dropTaken(context);
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
