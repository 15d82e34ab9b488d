/** The last hop of a chain hides what lies behind it: the answer's path ends at its own segment (docs/protocol.md, "Path"). */
import type { Element } from "../chain.ts";
import { trimPath as cut } from "../path.ts";

export function trimPath(): Element {
  return (next) => ({
    async request(request, ctx) {
      const response = await next.request(request, ctx);
      if (response.path !== undefined) cut(response, response.path.index);
      return response;
    },
    close: (connection, ctx) => next.close(connection, ctx),
  });
}
