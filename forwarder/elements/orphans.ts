/** Wires that nobody watches over: client and manager have both ended (docs/protocol.md, "The death of a client"). */
import type { CallContext, Element } from "../../sdk/chain.ts";
import type { Clock } from "../../sdk/clock.ts";
import type { Events, WithEvents } from "../../sdk/elements/begin.ts";
import { connectionOf } from "../../sdk/elements/update-path.ts";
import type { Logger } from "../../sdk/log.ts";
import type { WithClientEnd } from "./client-side.ts";
import { hasEnded, processOf } from "../kernel/proc-stat.ts";
import type { ProcessStart } from "../kernel/proc-stat.ts";

/** For clients to ask again where a manager is back: they try every two seconds at the latest. */
const ASK_AGAIN_MS = 10_000;

export interface OrphansOptions {
  readonly clock: Clock;
  readonly log: Logger;
}

export interface Orphans extends Disposable {
  readonly element: Element<WithEvents & WithClientEnd>;
  /**
   * To be called from time to time, when a manager is known to serve. As long as there is none, nothing is decided: a client
   * that was started again could not ask for its wires.
   */
  managerServes(): void;
}

/** Who asked for a wire last. */
interface Asked {
  readonly client: ProcessStart;
  readonly manager: ProcessStart;
  readonly events: Events;
}

/**
 * The manager closes the wires of a client that ended. One that was restarted does not know the clients that have not asked it;
 * their wires are closed here. State: two process ids for each wire of this node's clients, dropped on close.
 */
export function createOrphans({ clock, log }: OrphansOptions): Orphans {
  const asked = new Map<string, Asked>();
  let timer: Disposable | undefined;
  /** Those whose manager has ended: the one that serves now is another, which they have not asked. */
  const unwatched = () => {
    const ended = new Map<number, boolean>();
    return [...asked].filter(([, { manager }]) => {
      const known = ended.get(manager.pid) ?? hasEnded(manager);
      ended.set(manager.pid, known);
      return known;
    });
  };
  const close = (left: readonly (readonly [string, Asked])[]) => {
    timer = undefined;
    for (const [connection, each] of left) {
      const { client, events } = each;
      // Asked for again, or closed, meanwhile.
      if (asked.get(connection) !== each || !hasEnded(client)) continue;
      asked.delete(connection); // a Request that succeeds meanwhile puts it back
      log.info({ connection, pid: client.pid }, "a client ended when there was no manager to see it");
      void events.close("its process has ended, and so had the manager that it had asked");
    }
  };
  return {
    element: (next) => ({
      async request(request, ctx) {
        const { id } = connectionOf(request);
        const now = askedBy(ctx, asked.get(id));
        const response = await next.request(request, ctx);
        if (now !== undefined) asked.set(id, now);
        return response;
      },
      async close(connection, ctx) {
        asked.delete(connection.id);
        await next.close(connection, ctx);
      },
    }),
    managerServes() {
      timer?.[Symbol.dispose]();
      const left = unwatched();
      timer = left.length > 0 ? clock.timer(ASK_AGAIN_MS, () => close(left)) : undefined;
    },
    [Symbol.dispose]() {
      timer?.[Symbol.dispose]();
      asked.clear();
    },
  };
}

/** Undefined for calls of other nodes, and when one of the two has ended already: then its successor asks, or the lease runs out. */
function askedBy(
  { clientEnd, events, peer }: CallContext & WithEvents & WithClientEnd,
  known: Asked | undefined,
): Asked | undefined {
  const managerPid = peer?.process?.pid;
  if (clientEnd.kind !== "kernel" || managerPid === undefined) return undefined;
  const { pid } = clientEnd.netns;
  // A refresh by the same processes says nothing new of them, and a look into /proc has its price.
  const client = known?.client.pid === pid ? known.client : processOf(pid);
  const manager = known?.manager.pid === managerPid ? known.manager : processOf(managerPid);
  return client && manager && { client, manager, events };
}
