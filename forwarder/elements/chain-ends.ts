/** The last stretch of a chain that goes on with another hop before: its former wire leaves the endpoint's pod (docs/protocol.md, "Chaining"). */
import type { Connection } from "../../api/gen/connection_pb.js";
import { CHAIN_KEY, readChainMark } from "../../sdk/chain-mark.ts";
import type { Element } from "../../sdk/chain.ts";
import { KERNEL_TYPE, wantsNoAddresses } from "../../sdk/mechanisms/kernel.ts";
import type { Logger } from "../../sdk/log.ts";
import type { Dataplane } from "../dataplane.ts";

/**
 * The endpoint gives the new wire the addresses of the former one, whose route would come before (of two wires with the same
 * route the first has it). So the former one goes as soon as the new one is there; its connection ends with its own Close, or
 * with its lease. State: the wire of each chain to each endpoint of this node; dropped on close.
 */
export function chainEnds(dataplane: Pick<Dataplane, "remove">, log: Logger): Element {
  const wires = new Map<string, string>();
  const keys = new Map<string, string>();
  return (next) => ({
    async request(request, ctx) {
      const response = await next.request(request, ctx);
      const { id } = response;
      const key = keyOf(response);
      if (key === undefined || keys.get(id) === key) return response;
      const former = wires.get(key);
      wires.set(key, id);
      keys.set(id, key);
      if (former !== undefined && former !== id) {
        log.info({ connection: id, former }, "chain goes on with another hop before, its former wire goes");
        await dataplane.remove(former);
      }
      return response;
    },
    async close(connection, ctx) {
      const key = keys.get(connection.id);
      keys.delete(connection.id);
      if (key !== undefined && wires.get(key) === connection.id) wires.delete(key);
      await next.close(connection, ctx);
    },
  });
}

/** Of a wire with addresses to an endpoint of this node; undefined for any other. */
function keyOf({ context, mechanism, networkServiceEndpointName }: Connection): string | undefined {
  const mark = readChainMark(context?.extraContext[CHAIN_KEY]);
  if (mark === undefined || mechanism?.type !== KERNEL_TYPE || wantsNoAddresses(mechanism.parameters))
    return undefined;
  return `${mark.id} ${networkServiceEndpointName}`;
}
