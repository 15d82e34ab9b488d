/** Times Requests: those that make a wire, and refreshes. */
import type { Element } from "../chain.ts";
import type { Clock } from "../clock.ts";
import { codeOf } from "../errors.ts";
import { meters } from "../metrics/meters.ts";
import type { WithEvents } from "./begin.ts";

/** Without the time that a Request waited for others of its connection. */
export function measure(clock: Pick<Clock, "monotonic">): Element<WithEvents, WithEvents> {
  return (next) => ({
    async request(request, ctx) {
      const startMs = clock.monotonic();
      const meter = ctx.established ? meters.refresh : meters.setup;
      const done = (code: string) => meter.observe({ code }, (clock.monotonic() - startMs) / 1000);
      try {
        const response = await next.request(request, ctx);
        done("OK");
        return response;
      } catch (error) {
        done(codeOf(error));
        throw error;
      }
    },
    close: (connection, ctx) => next.close(connection, ctx),
  });
}
