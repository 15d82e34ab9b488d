/** Adds the node's labels to a connection that has none of its own. */
import type { Element } from "../sdk/chain.ts";
import { addClientInfo } from "../sdk/client-info.ts";
import type { ClientInfo } from "../sdk/client-info.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";

export function clientInfo(info: ClientInfo): Element {
  return (next) => ({
    async request(request, ctx) {
      addClientInfo(connectionOf(request).labels, info);
      return await next.request(request, ctx);
    },
    close: (connection, ctx) => next.close(connection, ctx),
  });
}
