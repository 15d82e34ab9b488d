/** Refuses oversized messages before anything is kept of them (docs/protocol.md, "Limits"). */
import type { Element } from "../chain.ts";
import { checkConnectionLimits, checkRequestLimits } from "../limits.ts";

export function checkLimits(): Element {
  return (next) => ({
    async request(request, ctx) {
      checkRequestLimits(request);
      return await next.request(request, ctx);
    },
    async close(connection, ctx) {
      checkConnectionLimits(connection);
      await next.close(connection, ctx);
    },
  });
}
