/** Policy routes that the endpoint asks its clients to have (docs/protocol.md, "Policy routes"). */
import { create } from "@bufbuild/protobuf";
import { State } from "../api/gen/connection_pb.js";
import {
  ConnectionContextSchema,
  IPContextSchema,
  PolicyRouteSchema,
} from "../api/gen/connectioncontext_pb.js";
import type { PolicyRoute } from "../api/gen/connectioncontext_pb.js";
import type { Element } from "../sdk/chain.ts";
import type { MonitorStore } from "../sdk/elements/monitor.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import { addAddress } from "../sdk/ipam/context.ts";

/**
 * The connection's policies become those of now; the addresses that they select by are the client's, too.
 * State: which addresses came from here, per connection, until it brings them no more; dropped on close.
 */
export function policyRoutes(current: () => readonly PolicyRoute[]): Element {
  const given = new Map<string, ReadonlySet<string>>();
  return (next) => ({
    async request(request, ctx) {
      const connection = connectionOf(request);
      const context = (connection.context ??= create(ConnectionContextSchema));
      const ipContext = (context.ipContext ??= create(IPContextSchema));
      const policies = current();
      const sources = new Set(policies.map(({ from }) => from).filter((from) => from !== ""));
      const before = given.get(connection.id) ?? new Set();
      const brought = ipContext.srcIpAddrs.filter((text) => before.has(text));
      ipContext.srcIpAddrs = ipContext.srcIpAddrs.filter((text) => sources.has(text) || !before.has(text));
      for (const source of sources) addAddress(ipContext.srcIpAddrs, source);
      ipContext.policies = policies.map((policy) => create(PolicyRouteSchema, policy));
      const response = await next.request(request, ctx);
      // What it brought it brings again if a hop before us refuses this answer.
      given.set(connection.id, new Set([...sources, ...brought]));
      return response;
    },
    async close(connection, ctx) {
      given.delete(connection.id);
      await next.close(connection, ctx);
    },
  });
}

/** Asks the clients of all connections to refresh: something that they get from us has changed. */
export function requestRefresh(store: MonitorStore): void {
  for (const id of store.ids()) store.fromNextHop(id, { state: State.REFRESH_REQUESTED });
}
