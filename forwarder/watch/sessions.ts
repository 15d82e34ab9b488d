/** Begins the handshakes of tunnels whose session has ended, so that a path that is back is used at once (docs/protocol.md, "Wires"). */
import type { Clock } from "../../sdk/clock.ts";
import type { Logger } from "../../sdk/log.ts";
import { oneAtATime } from "../../sdk/one-at-a-time.ts";
import { SESSION_TIMES, judgeSession, newSession } from "../plan/session.ts";
import type { Role, SeenPeer, Session, SessionTimes } from "../plan/session.ts";

export interface SessionWatch extends Disposable {
  /** A tunnel that was made, or found by this forwarder when it started. One that is known goes on as it was. */
  add(wireId: string, role: Role, wasFound: boolean): void;
  drop(wireId: string): void;
}

export interface SessionWatchOptions {
  /** The peer of a tunnel as it is; undefined for a tunnel that is gone. */
  readonly look: (wireId: string) => Promise<SeenPeer | undefined>;
  readonly restart: (wireId: string, towards: "learned" | "told") => Promise<void>;
  /** Runs work beside which nothing else is done with that wire. */
  readonly turn: (wireId: string, work: () => Promise<void>) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly times?: SessionTimes;
}

/** A handshake costs the node a millisecond at most: hundreds at once take longer than a second, and never all of it. */
const EACH_MS = 2.5;
/** After a look that failed. */
const AGAIN_MS = 5000;

interface Watched {
  readonly role: Role;
  session: Session;
  timer: Disposable;
}

/**
 * State: what was seen last of each tunnel, and a timer. A tunnel that lives is looked at every two minutes or so; one without a session
 * once a second, one after the other.
 */
export function watchSessions(options: SessionWatchOptions): SessionWatch {
  const { clock, log, turn, times = SESSION_TIMES } = options;
  const watched = new Map<string, Watched>();
  const lane = oneAtATime();

  async function look(wireId: string, tunnel: Watched): Promise<void> {
    if (watched.get(wireId) !== tunnel) return;
    const seen = await options.look(wireId);
    if (watched.get(wireId) !== tunnel) return;
    if (seen === undefined) return drop(wireId);
    const now = { monotonicMs: clock.monotonic(), wallMs: clock.now() };
    const before = tunnel.session;
    const { session, restart, lookInMs } = judgeSession(before, seen, tunnel.role, now, times);
    tunnel.session = session;
    arm(wireId, tunnel, session.kind === "stale" ? Math.max(lookInMs, EACH_MS * countStale()) : lookInMs);
    if (before.kind === "fresh" && session.kind === "stale")
      log.info({ connection: wireId }, "tunnel has lost its session: beginning handshakes");
    if (before.kind === "stale" && session.kind === "fresh" && before.tries > 1)
      log.info(
        { connection: wireId, durationMs: now.monotonicMs - before.sinceMs },
        "tunnel has a session again",
      );
    if (restart !== undefined) await options.restart(wireId, restart);
  }
  const countStale = () => [...watched.values()].filter(({ session }) => session.kind === "stale").length;
  function arm(wireId: string, tunnel: Watched, lookInMs: number): void {
    tunnel.timer[Symbol.dispose]();
    tunnel.timer = clock.timer(lookInMs, () => {
      turn(wireId, () => lane(() => look(wireId, tunnel))).catch((err: unknown) => {
        log.info({ connection: wireId, err }, "looking at a tunnel failed");
        if (watched.get(wireId) === tunnel) arm(wireId, tunnel, AGAIN_MS);
      });
    });
  }
  function drop(wireId: string): void {
    watched.get(wireId)?.timer[Symbol.dispose]();
    watched.delete(wireId);
  }
  return {
    add(wireId, role, wasFound) {
      if (watched.has(wireId)) return;
      const { session, lookInMs } = newSession(role, clock.monotonic(), wasFound);
      const tunnel: Watched = { role, session, timer: { [Symbol.dispose]: () => undefined } };
      watched.set(wireId, tunnel);
      arm(wireId, tunnel, lookInMs);
    },
    drop,
    [Symbol.dispose]() {
      for (const wireId of watched.keys()) drop(wireId);
    },
  };
}
