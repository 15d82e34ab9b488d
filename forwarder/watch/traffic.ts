/** What each wire carries, as metrics: read from the kernel at each scrape, of a bounded number of wires. */
import { createHash } from "node:crypto";
import type { Clock } from "../../sdk/clock.ts";
import type { Sample } from "../../sdk/metrics/meter.ts";
import { meters } from "../../sdk/metrics/meters.ts";
import { onceAScrape } from "../../sdk/metrics/once-a-scrape.ts";
import type { Dataplane, EndStats } from "../dataplane.ts";

/** Series are kept by whoever scrapes for weeks: beyond so many wires the others have none. */
const MAX_WIRES = 1000;

type Label = "wire" | "side" | "direction";

export function trackTraffic(
  dataplane: Pick<Dataplane, "stats">,
  clock: Pick<Clock, "monotonic">,
): Disposable {
  const read = onceAScrape(() => dataplane.stats(), clock);
  const samples = async (rx: keyof EndStats, tx: keyof EndStats) => samplesOf(await read(), rx, tx);
  const stack = new DisposableStack();
  stack.use(meters.wireBytes.track(() => samples("rxBytes", "txBytes")));
  stack.use(meters.wirePackets.track(() => samples("rxPackets", "txPackets")));
  stack.use(meters.wireDropped.track(() => samples("rxDropped", "txDropped")));
  return stack;
}

function samplesOf(
  stats: ReadonlyMap<string, readonly EndStats[]>,
  rx: keyof EndStats,
  tx: keyof EndStats,
): Sample<Label>[] {
  return [...stats].slice(0, MAX_WIRES).flatMap(([id, ends]) =>
    ends.flatMap((end) => {
      const labels = { wire: wireLabel(id), side: end.side };
      return [
        { labels: { ...labels, direction: "received" }, value: Number(end[rx]) },
        { labels: { ...labels, direction: "sent" }, value: Number(end[tx]) },
      ];
    }),
  );
}

/** Ids of this forwarder are random; one that a path brought along may be anything, and is not repeated. */
function wireLabel(id: string): string {
  return /^[0-9a-f-]{36}$/.test(id) ? id : createHash("sha256").update(id).digest("hex").slice(0, 16);
}
