/** Addresses and routes of a connection from the endpoint's pools (docs/protocol.md, "Addresses (IPAM)"). */
import { create } from "@bufbuild/protobuf";
import { ConnectionContextSchema, IPContextSchema } from "../api/gen/connectioncontext_pb.js";
import type { Element } from "../sdk/chain.ts";
import type { WithEvents } from "../sdk/elements/begin.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import type { Ipam } from "../sdk/ipam/ipam.ts";

/** State: the pools' own. What a failed first request took goes back. */
export function assignAddresses(ipam: Ipam): Element<WithEvents, WithEvents> {
  return (next) => ({
    async request(request, ctx) {
      const connection = connectionOf(request);
      connection.context ??= create(ConnectionContextSchema);
      connection.context.ipContext ??= create(IPContextSchema);
      const lease = ipam.request(connection.id, connection.context.ipContext);
      try {
        const response = await next.request(request, ctx);
        lease.commit(response.context?.ipContext);
        return response;
      } catch (error) {
        lease.rollback();
        throw error;
      }
    },
    async close(connection, ctx) {
      ipam.close(connection.id);
      await next.close(connection, ctx);
    },
  });
}
