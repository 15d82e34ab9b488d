/** An endpoint that nobody uses stops by itself (docs/protocol.md, "Endpoints on demand"). */
import type { Element } from "../sdk/chain.ts";
import type { Clock } from "../sdk/clock.ts";
import type { WithEvents } from "../sdk/elements/begin.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import { NsmError } from "../sdk/errors.ts";

export interface IdleOptions {
  /** 0 = never. */
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** Ends the process, as a signal would. */
  readonly stop: (why: string) => void;
}

export interface Idle extends Disposable {
  /** Throws FAILED_PRECONDITION `endpoint-expired` once the time is over. */
  begin(id: string): void;
  /** A first Request failed, or the connection is closed. */
  end(id: string): void;
}

/** The time starts at once: an endpoint that nobody ever asks for stops, too. */
export function createIdle({ timeoutMs, clock, stop }: IdleOptions): Idle {
  const active = new Set<string>();
  let isExpired = false;
  let timer: Disposable | undefined;
  const arm = () => {
    timer?.[Symbol.dispose]();
    timer = undefined;
    if (timeoutMs === 0 || isExpired || active.size > 0) return;
    timer = clock.timer(timeoutMs, () => {
      isExpired = true;
      stop(`no connection for ${timeoutMs / 1000} s`);
    });
  };
  arm();
  return {
    begin(id) {
      if (isExpired)
        throw new NsmError(
          "FAILED_PRECONDITION",
          "endpoint-expired",
          "endpoint expired: it had no connection for too long and is stopping; ask again to get another one",
        );
      active.add(id);
      arm();
    },
    end(id) {
      if (active.delete(id)) arm();
    },
    [Symbol.dispose]() {
      timer?.[Symbol.dispose]();
      isExpired = true;
    },
  };
}

export function onIdle(idle: Idle): Element<WithEvents, WithEvents> {
  return (next) => ({
    async request(request, ctx) {
      const { id } = connectionOf(request);
      idle.begin(id);
      try {
        return await next.request(request, ctx);
      } catch (error) {
        if (!ctx.established) idle.end(id);
        throw error;
      }
    },
    async close(connection, ctx) {
      try {
        await next.close(connection, ctx);
      } finally {
        idle.end(connection.id);
      }
    },
  });
}
