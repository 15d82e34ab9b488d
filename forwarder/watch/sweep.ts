/** Removes what an earlier life of the forwarder left and nobody claimed for as long as the longest token lives. */
import type { Clock } from "../../sdk/clock.ts";
import type { MonitorStore } from "../../sdk/elements/monitor.ts";
import type { Logger } from "../../sdk/log.ts";
import type { Dataplane } from "../dataplane.ts";

/** Beyond the longest token, for clocks that differ and refreshes in flight. */
const MARGIN_MS = 30_000;
const ASK_WITHIN_MS = 5000;

export interface SweepOptions {
  readonly dataplane: Pick<Dataplane, "sweep">;
  readonly store: Pick<MonitorStore, "ids">;
  /** False while another forwarder serves this node: what was found at the start may be its. Rejects when nobody can tell. */
  readonly isAlone: (signal: AbortSignal) => Promise<boolean>;
  readonly clock: Pick<Clock, "timer">;
  readonly log: Logger;
  /** Longest life of a token. */
  readonly afterMs: number;
}

/** One sweep, put off while another forwarder is there; disposing before it is due prevents it. */
export function startSweep({ dataplane, store, isAlone, clock, log, afterMs }: SweepOptions): Disposable {
  const stop = new AbortController();
  const sweep = async () => {
    try {
      if (await isAlone(AbortSignal.any([stop.signal, AbortSignal.timeout(ASK_WITHIN_MS)]))) {
        if (stop.signal.aborted) return;
        log.info({ wires: await dataplane.sweep(store.ids()) }, "removed wires that nobody claimed");
        return;
      }
      log.debug("another forwarder serves this node: what nobody claimed here may be its");
    } catch (err) {
      if (!stop.signal.aborted) log.error({ err }, "removing unclaimed wires failed, trying again later");
    }
    if (!stop.signal.aborted) arm(afterMs);
  };
  let timer: Disposable | undefined;
  const arm = (delayMs: number) => {
    timer = clock.timer(delayMs, () => void sweep());
  };
  arm(afterMs + MARGIN_MS);
  return {
    [Symbol.dispose]() {
      stop.abort();
      timer?.[Symbol.dispose]();
    },
  };
}
