/** Notices that the wall clock was set back, after which WireGuard peers refuse our handshakes (docs/protocol.md, "Wires"). */
import type { Clock } from "../../sdk/clock.ts";

/** Reading two clocks takes time; a smaller step does no harm either. */
const SLACK_MS = 1000;
/** A session ends 180 s after its handshake (RejectAfterTime), and the other node's next keepalive begins the next one, if it can. */
const SETTLED_MS = 195_000;

export interface SetBack {
  /**
   * True when the clock was set back, every session of that time has ended, and what is asked about was looked at before then:
   * at `checkedMs` of the monotonic clock. Sees a step when it is called, so call it often.
   */
  isDue(checkedMs: number): boolean;
}

export function createSetBack(clock: Clock): SetBack {
  let aheadMs = clock.now() - clock.monotonic();
  let settledMs: number | undefined;
  return {
    isDue(checkedMs) {
      const monotonicMs = clock.monotonic();
      const nowAheadMs = clock.now() - monotonicMs;
      if (nowAheadMs < aheadMs - SLACK_MS) settledMs = monotonicMs + SETTLED_MS;
      aheadMs = nowAheadMs;
      return settledMs !== undefined && checkedMs < settledMs && settledMs <= monotonicMs;
    },
  };
}
