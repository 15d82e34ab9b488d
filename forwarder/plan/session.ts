/**
 * When the handshake of a WireGuard tunnel is begun anew: pure (docs/protocol.md, "Wires").
 *
 *     new ──► fresh ──► stale ──► fresh        fresh: has a session; looked at again when that must have been renewed
 *      └──► doubted ──────┘                    doubted: found with an old handshake, which a clock that was set makes, too
 *
 * WireGuard renews a session after 120 s and ends it after 180 s (RejectAfterTime). Without one it begins a handshake every five seconds, the
 * earliest (RekeyTimeout), so a path that is back would wait as long. A peer that is made anew begins at once, and has no session to
 * lose by then. Two handshakes that cross end both, so a serving end that hears the asking one leaves it to it, for
 * longer than WireGuard's own next try takes; an asking end that hears the other one and gets nowhere leaves more time for the answer, because
 * the way may be longer than that.
 */

/** What a look at a tunnel's peer shows. */
export interface SeenPeer {
  /** By the wall clock of then; undefined for none since the peer was made. */
  readonly handshakeMs: number | undefined;
  /** Since the peer was made; handshakes count. */
  readonly rxBytes: number;
}

export type Session =
  | { readonly kind: "new"; readonly sinceMs: number }
  | { readonly kind: "fresh"; readonly handshakeMs: number; readonly lookedMs: number }
  | { readonly kind: "doubted"; readonly handshakeMs: number; readonly rxBytes: number }
  | {
      readonly kind: "stale";
      /** The last one before. */
      readonly handshakeMs: number | undefined;
      readonly sinceMs: number;
      readonly tries: number;
      /** Looks at which the peer had been heard, and when it was last. */
      readonly heard: number;
      readonly heardMs: number;
      readonly lookedMs: number;
      readonly rxBytes: number;
    };

export interface Judgement {
  readonly session: Session;
  /** Begin the handshake now, towards where the peer was last, or where the connection says that it is. */
  readonly restart?: "learned" | "told";
  /** When to look again. */
  readonly lookInMs: number;
}

export interface SessionTimes {
  /** Life of a session, from its handshake on. */
  readonly sessionMs: number;
  /** Between two handshakes that are begun. */
  readonly restartMs: number;
}

export const SESSION_TIMES: SessionTimes = { sessionMs: 180_000, restartMs: 1000 };

/** The asking end begins, and its peer is ready; the serving end's first try usually comes before the asking one is there. */
const FIRST_LOOK_MS = { client: 1000, endpoint: 400 } as const;
/** Longer than the next keepalive takes. */
const DOUBT_MS = 15_000;
/**
 * From the end of a session that was not renewed to the look that sees it. Both ends know that moment to the millisecond, and handshakes
 * that cross end each other, so the ends take turns: further apart than most ways are long.
 */
const AFTER_END_MS = { endpoint: 50, client: 300 } as const;
/** A peer that was away for so long is usually gone for good. */
const PATIENCE_MS = 600_000;
const SLOW_MS = 5000;
/** Longer than WireGuard's own next try takes. */
const SERVING_HOLD_MS = 6000;
/** After such a silence what was heard before says nothing of the way any more. */
const FORGOTTEN_MS = 30_000;

/** Which end of its wire the tunnel's device is: the client's asks. */
export type Role = "client" | "endpoint";

/** `wasFound`: by a forwarder that was just started. Clocks: monotonic. */
export function newSession(role: Role, nowMs: number, wasFound: boolean): Omit<Judgement, "restart"> {
  return {
    session: { kind: "new", sinceMs: wasFound ? -Infinity : nowMs },
    lookInMs: wasFound ? 0 : FIRST_LOOK_MS[role],
  };
}

export function judgeSession(
  session: Session,
  seen: SeenPeer,
  role: Role,
  now: { readonly monotonicMs: number; readonly wallMs: number },
  times: SessionTimes = SESSION_TIMES,
): Judgement {
  const { handshakeMs, rxBytes } = seen;
  const nowMs = now.monotonicMs;
  /** `withinMs`: it is at most that old, whatever the clocks say. */
  const fresh = (at: number, withinMs: number): Judgement => {
    const ageMs = Math.min(Math.max(0, now.wallMs - at), withinMs);
    return {
      session: { kind: "fresh", handshakeMs: at, lookedMs: nowMs },
      lookInMs: Math.max(times.restartMs, times.sessionMs + AFTER_END_MS[role] - ageMs),
    };
  };
  const stale = (): Judgement =>
    judgeStale(
      {
        kind: "stale",
        handshakeMs,
        sinceMs: nowMs,
        tries: 0,
        heard: 0,
        heardMs: -Infinity,
        lookedMs: nowMs,
        rxBytes,
      },
      seen,
      role,
      nowMs,
      times,
    );
  switch (session.kind) {
    case "new": {
      if (handshakeMs === undefined) return stale();
      const isKnown = now.wallMs >= handshakeMs && now.wallMs - handshakeMs < times.sessionMs;
      if (isKnown || session.sinceMs !== -Infinity) return fresh(handshakeMs, nowMs - session.sinceMs);
      return { session: { kind: "doubted", handshakeMs, rxBytes }, lookInMs: DOUBT_MS };
    }
    case "doubted":
      if (handshakeMs === session.handshakeMs && rxBytes === session.rxBytes) return stale();
      return handshakeMs === undefined ? stale() : fresh(handshakeMs, DOUBT_MS);
    case "fresh":
      if (handshakeMs === undefined)
        return { session: { kind: "new", sinceMs: nowMs }, lookInMs: FIRST_LOOK_MS[role] };
      return handshakeMs === session.handshakeMs ? stale() : fresh(handshakeMs, nowMs - session.lookedMs);
    case "stale":
      if (handshakeMs !== undefined && handshakeMs !== session.handshakeMs)
        return fresh(handshakeMs, nowMs - session.lookedMs);
      return judgeStale(session, seen, role, nowMs, times);
  }
}

function judgeStale(
  session: Extract<Session, { kind: "stale" }>,
  { rxBytes }: SeenPeer,
  role: Role,
  nowMs: number,
  { restartMs }: SessionTimes,
): Judgement {
  const isHeard = rxBytes > session.rxBytes;
  const isForgotten = nowMs - session.heardMs > FORGOTTEN_MS;
  const heard = isHeard ? session.heard + 1 : isForgotten ? 0 : session.heard;
  const looked = { ...session, lookedMs: nowMs, rxBytes, heard, heardMs: isHeard ? nowMs : session.heardMs };
  if (role === "endpoint" && heard > 0 && nowMs - looked.heardMs < SERVING_HOLD_MS)
    return { session: looked, lookInMs: restartMs };
  const tries = session.tries + 1;
  const isPatient = nowMs - session.sinceMs > PATIENCE_MS;
  return {
    // A peer that is made anew has received nothing.
    session: { ...looked, tries, rxBytes: 0 },
    restart: tries % 3 === 0 ? "told" : "learned",
    lookInMs: isPatient ? SLOW_MS : Math.min(restartMs * 2 ** Math.max(0, heard - 1), SLOW_MS),
  };
}
