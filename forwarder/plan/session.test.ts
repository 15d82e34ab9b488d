import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SESSION_TIMES, judgeSession, newSession } from "./session.ts";
import type { Role, SeenPeer, Session } from "./session.ts";

const WALL = 1_900_000_000_000;
const at = (monotonicMs: number, wallMs = WALL + monotonicMs) => ({ monotonicMs, wallMs });
const seen = (handshakeMs: number | undefined, rxBytes = 0): SeenPeer => ({ handshakeMs, rxBytes });
const { sessionMs } = SESSION_TIMES;

describe("one tunnel", () => {
  test("a new one that has a session is left alone until the session would have ended", () => {
    const { session, lookInMs } = newSession("client", 0, false);
    expect(lookInMs).toBe(1000);
    const fresh = judgeSession(session, seen(WALL + 10, 92), "client", at(1000));
    expect(fresh).toEqual({
      session: { kind: "fresh", handshakeMs: WALL + 10, lookedMs: 1000 },
      lookInMs: sessionMs + 300 - 990,
    });
    const renewed = judgeSession(fresh.session, seen(WALL + 120_000), "client", at(181_010));
    expect(renewed.restart).toBeUndefined();
    expect(renewed.lookInMs).toBe(sessionMs + 300 - 61_010);
  });

  test("a new one without a handshake begins one, the serving end sooner", () => {
    for (const role of ["client", "endpoint"] as const) {
      const { session, lookInMs } = newSession(role, 0, false);
      expect(judgeSession(session, seen(undefined), role, at(lookInMs)).restart).toBe("learned");
    }
    expect(newSession("endpoint", 0, false).lookInMs).toBeLessThan(newSession("client", 0, false).lookInMs);
  });

  test("a session that was not renewed has ended: once a second, at last every five, mostly where the peer was last", () => {
    let session: Session = { kind: "fresh", handshakeMs: WALL, lookedMs: 0 };
    let nowMs = sessionMs;
    const restarts: (string | undefined)[] = [];
    while (nowMs < sessionMs + 6000) {
      const judged = judgeSession(
        session,
        seen(session.kind === "fresh" ? WALL : undefined),
        "client",
        at(nowMs),
      );
      restarts.push(judged.restart);
      expect(judged.lookInMs).toBe(1000);
      ({ session } = judged);
      nowMs += judged.lookInMs;
    }
    expect(restarts).toEqual(["learned", "learned", "told", "learned", "learned", "told"]);
    expect(judgeSession(session, seen(undefined), "client", at(nowMs + 600_000)).lookInMs).toBe(5000);
    const back = judgeSession(session, seen(WALL + nowMs - 300), "client", at(nowMs));
    expect(back).toMatchObject({ session: { kind: "fresh" }, lookInMs: sessionMs + 300 - 300 });
  });

  test.for([3_600_000, 86_400_000, -3_600_000])(
    "a clock that is set by %i ms ends no session that lives",
    (stepMs) => {
      const session: Session = { kind: "fresh", handshakeMs: WALL + 100_000, lookedMs: 101_000 };
      const renewed = WALL + 220_000; // by the clock of then
      const judged = judgeSession(session, seen(renewed), "client", at(281_100, WALL + 281_100 + stepMs));
      expect(judged.restart).toBeUndefined();
      // It is no older than the look before.
      expect(judged.lookInMs).toBeGreaterThanOrEqual(sessionMs - 180_100);
    },
  );

  test("a handshake of long ago that a new forwarder finds is doubted first, for the clock may have been set", () => {
    const { session, lookInMs } = newSession("client", 0, true);
    expect(lookInMs).toBe(0);
    const young = judgeSession(session, seen(WALL - 60_000), "client", at(0));
    expect(young).toMatchObject({ session: { kind: "fresh" }, lookInMs: sessionMs + 300 - 60_000 });
    const old = judgeSession(session, seen(WALL - 300_000, 500), "client", at(0));
    expect(old.restart).toBeUndefined();
    const alive = judgeSession(old.session, seen(WALL - 300_000, 532), "client", at(old.lookInMs));
    expect(alive).toMatchObject({ session: { kind: "fresh" } });
    expect(alive.restart).toBeUndefined();
    expect(judgeSession(old.session, seen(WALL - 300_000, 500), "client", at(old.lookInMs)).restart).toBe(
      "learned",
    );
  });
});

/** What is on its way from one end to the other. */
type Packet = {
  readonly kind: "initiation" | "response" | "confirmation";
  readonly key: number;
  /** Of an initiation: by the sender's wall clock. */
  readonly wallMs: number;
};

/**
 * One end as WireGuard is (whitepaper, 5.1, 5.4, 6): an own initiation is answered under its key; one of the peer's that comes meanwhile
 * ends it; whoever answers has a session when the other one has used it. An initiation that is no later than the last is not heard.
 */
function createEnd(role: Role, shiftMs: number, send: (packet: Packet) => void, newKey: () => number) {
  let initiation: number | undefined;
  let answered: number | undefined;
  let rxBytes = 0;
  let nextTryMs = Infinity;
  /** Of before the clocks were set. */
  let latestMs = WALL - 1;
  const end = {
    role,
    session: undefined as number | undefined,
    handshakeMs: undefined as number | undefined,
    get seen(): SeenPeer {
      return { handshakeMs: end.handshakeMs, rxBytes };
    },
    get nextTryMs() {
      return nextTryMs;
    },
    begin(nowMs: number) {
      initiation = newKey();
      nextTryMs = nowMs + 5000 + (role === "client" ? 100 : 250); // with jitter
      send({ kind: "initiation", key: initiation, wallMs: WALL + nowMs + shiftMs });
    },
    renew(nowMs: number) {
      answered = end.session = end.handshakeMs = undefined;
      rxBytes = 0;
      latestMs = -Infinity;
      end.begin(nowMs);
    },
    receive({ kind, key, wallMs }: Packet, nowMs: number) {
      if (kind === "initiation") {
        if (wallMs <= latestMs) return;
        latestMs = wallMs;
        rxBytes += 148;
        answered = key;
        initiation = undefined;
        send({ kind: "response", key, wallMs: 0 });
      } else if (key === (kind === "response" ? initiation : answered)) {
        rxBytes += 92;
        end.session = key;
        end.handshakeMs = WALL + nowMs + shiftMs;
        nextTryMs = Infinity;
        if (kind === "response") send({ kind: "confirmation", key, wallMs: 0 });
      }
    },
  };
  return end;
}

interface Way {
  readonly rttMs: number;
  /** When the ends look first after their session has ended: the asking end, the serving one. */
  readonly looksMs: readonly [number, number];
  readonly backMs: number;
  /** By how much the clocks have been set: of the asking end, of the serving one. */
  readonly shiftsMs?: readonly [number, number];
}

/** Milliseconds until both ends have one session, after the path is back. */
function resumes({ rttMs, looksMs, backMs, shiftsMs: [asking, serving] = [0, 0] }: Way): number {
  let keys = 0;
  const flying: { readonly atMs: number; readonly to: 0 | 1; readonly packet: Packet }[] = [];
  let nowMs = 0;
  const sender = (to: 0 | 1) => (packet: Packet) => {
    if (nowMs >= backMs) flying.push({ atMs: nowMs + rttMs / 2, to, packet });
  };
  const newKey = () => ++keys;
  const client = createEnd("client", asking, sender(1), newKey);
  const endpoint = createEnd("endpoint", serving, sender(0), newKey);
  const ends = [client, endpoint] as const;
  const watches = ends.map(({ role }, i) => ({
    session: { kind: "fresh", handshakeMs: WALL - 1, lookedMs: 0 } as Session,
    dueMs: looksMs[i] ?? 0,
    role,
  }));
  for (const end of ends) end.handshakeMs = WALL - 1;
  for (; nowMs < backMs + 60_000; nowMs++) {
    for (const packet of flying.filter(({ atMs }) => atMs <= nowMs)) {
      flying.splice(flying.indexOf(packet), 1);
      ends[packet.to].receive(packet.packet, nowMs);
    }
    if (client.session !== undefined && client.session === endpoint.session) return nowMs - backMs;
    for (const [i, watch] of watches.entries()) {
      const end = ends[i] ?? client;
      if (watch.dueMs <= nowMs) {
        const judged = judgeSession(watch.session, end.seen, watch.role, at(nowMs, WALL + nowMs));
        watch.session = judged.session;
        watch.dueMs = nowMs + judged.lookInMs;
        if (judged.restart !== undefined) end.renew(nowMs);
      }
      if (end.nextTryMs <= nowMs) end.begin(nowMs);
    }
  }
  return Infinity;
}

describe("two ends that both begin", () => {
  const offset = fc.integer({ min: 0, max: 999 });
  const back = fc.integer({ min: 3000, max: 6000 });

  test("have a session within a second, and a round trip or two, after the path is back", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 400 }), offset, back, (rttMs, offsetMs, backMs) => {
        const isCrossing = Math.min(offsetMs, 1000 - offsetMs) <= rttMs;
        const took = resumes({ rttMs, looksMs: [0, offsetMs], backMs });
        // Handshakes that cross cost one more try of the asking end.
        expect(took).toBeLessThanOrEqual((isCrossing ? 2000 : 1000) + 2 * rttMs + 2);
      }),
      { numRuns: 60 },
    );
  });

  test.for([
    [-3_600_000, -3_600_000],
    [-3_600_000, 0],
    [0, -3_600_000],
    [-3_600_000, -7_200_000],
    [86_400_000, -3_600_000],
  ] as const)(
    "do so in their turns when a session has ended, each by itself: within half a second, clocks set by %i and %i ms",
    (shiftsMs) => {
      const afterEndMs = (role: Role) =>
        judgeSession(newSession(role, 0, false).session, seen(WALL), role, at(0)).lookInMs - sessionMs;
      const looksMs = [afterEndMs("client"), afterEndMs("endpoint")] as const;
      for (let rttMs = 1; rttMs < 200; rttMs += 7)
        expect(resumes({ rttMs, looksMs, backMs: 0, shiftsMs })).toBeLessThanOrEqual(500 + 2 * rttMs);
    },
  );

  test("have one in the end over a way that is longer than the time between two tries", () => {
    fc.assert(
      fc.property(fc.integer({ min: 400, max: 3000 }), offset, back, (rttMs, offsetMs, backMs) => {
        expect(resumes({ rttMs, looksMs: [0, offsetMs], backMs })).toBeLessThan(30_000);
      }),
      { numRuns: 60 },
    );
  });
});
