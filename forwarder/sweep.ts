/** Removes what an earlier life of the forwarder left and nobody claimed for as long as the longest token lives. */
import type { Clock } from "../sdk/clock.ts";
import type { MonitorStore } from "../sdk/elements/monitor.ts";
import type { Logger } from "../sdk/log.ts";
import type { Dataplane } from "./dataplane.ts";

/** Beyond the longest token, for clocks that differ and refreshes in flight. */
const MARGIN_MS = 30_000;

export interface SweepOptions {
  readonly dataplane: Pick<Dataplane, "sweep">;
  readonly store: MonitorStore;
  readonly clock: Clock;
  readonly log: Logger;
  /** Longest life of a token. */
  readonly afterMs: number;
}

/** One sweep; disposing before it is due prevents it. */
export function startSweep({ dataplane, store, clock, log, afterMs }: SweepOptions): Disposable {
  return clock.timer(afterMs + MARGIN_MS, () => {
    dataplane
      .sweep(store.ids())
      .then((removed) => log.info({ wires: removed }, "removed wires that nobody claimed"))
      .catch((err: unknown) => log.error({ err }, "removing unclaimed wires failed"));
  });
}
