/** A chain that goes on with another hop before keeps its addresses (docs/protocol.md, "Chaining"). */
import { CHAIN_KEY, chainTakenOver, readChainMark } from "../sdk/chain-mark.ts";
import type { Element } from "../sdk/chain.ts";
import type { WithEvents } from "../sdk/elements/begin.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import type { Ipam } from "../sdk/ipam/ipam.ts";

/**
 * What the former connection of the chain had is free for the one that takes its place, which brings it along. The former one has no
 * say any more: it ends with its Close or its lease. State: the connection of each chain; dropped on close.
 */
export function handOver(ipam: Pick<Ipam, "close">): Element<WithEvents, WithEvents> {
  const byChain = new Map<string, string>();
  const chains = new Map<string, string>();
  const replaced = new Set<string>();
  return (next) => ({
    async request(request, ctx) {
      const { id, context } = connectionOf(request);
      if (replaced.has(id)) throw chainTakenOver(id);
      const chain = readChainMark(context?.extraContext[CHAIN_KEY])?.id;
      if (chain === undefined || chains.has(id)) return await next.request(request, ctx);
      const former = byChain.get(chain);
      if (former !== undefined) {
        replaced.add(former);
        ipam.close(former);
      }
      byChain.set(chain, id);
      chains.set(id, chain);
      try {
        return await next.request(request, ctx);
      } catch (error) {
        // The former one gets its addresses back with its next refresh.
        chains.delete(id);
        if (former !== undefined && replaced.delete(former)) byChain.set(chain, former);
        else if (byChain.get(chain) === id) byChain.delete(chain);
        throw error;
      }
    },
    async close(connection, ctx) {
      const { id } = connection;
      replaced.delete(id);
      const chain = chains.get(id);
      chains.delete(id);
      if (chain !== undefined && byChain.get(chain) === id) byChain.delete(chain);
      await next.close(connection, ctx);
    },
  });
}
