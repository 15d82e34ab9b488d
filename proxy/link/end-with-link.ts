/** Wires between two domains end with the link that they went over: whoever was let in by it is not any more. */
import type { Element } from "../../sdk/chain.ts";
import type { WithEvents } from "../../sdk/elements/begin.ts";
import { connectionOf } from "../../sdk/elements/update-path.ts";
import type { WithSide } from "../side.ts";
import { linkUrl } from "./hub.ts";
import type { HubEvents } from "./hub.ts";
import type { LinkRecord } from "./state.ts";

export interface LinksOfWires {
  links(): readonly LinkRecord[];
  listen(events: HubEvents): Disposable;
}

/** State: one entry a connection that goes over a link, dropped on close. */
export function endWithLink(hub: LinksOfWires): Element<WithEvents & WithSide> {
  const ends = new Map<string, { readonly linkId: string; readonly close: () => Promise<void> }>();
  hub.listen({
    up: () => undefined,
    async gone({ id }) {
      const over = [...ends.values()].filter(({ linkId }) => linkId === id);
      await Promise.all(over.map(({ close }) => close()));
    },
  });
  const linkOf = (url: string | undefined, peer: string | undefined) =>
    hub.links().find(({ domain, proxyId }) => linkUrl(domain) === url || proxyId === peer);
  return (next) => ({
    async request(request, ctx) {
      const { id } = connectionOf(request);
      const link = linkOf(ctx.way?.url, ctx.peer?.spiffeId);
      const response = await next.request(request, ctx);
      if (link !== undefined)
        ends.set(id, {
          linkId: link.id,
          close: () => ctx.events.close(`the link with ${link.domain} was removed`),
        });
      return response;
    },
    async close(connection, ctx) {
      ends.delete(connection.id);
      await next.close(connection, ctx);
    },
  });
}
