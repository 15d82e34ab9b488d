/** What the process itself is asked at each scrape: time, memory, descriptors, and how late its event loop is. */
import { readdir } from "node:fs/promises";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { meters } from "./meters.ts";

const NO_LABELS = {};
const LAG_RESOLUTION_MS = 20;
const QUANTILES = [0.5, 0.99, 1];

export function trackProcess(version: string): Disposable {
  const lag = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS });
  lag.enable();
  const stack = new DisposableStack();
  stack.defer(() => lag.disable());
  const one = (value: number) => [{ labels: NO_LABELS, value }];
  const startedMs = performance.timeOrigin;
  stack.use(meters.buildInfo.track(() => [{ labels: { version, node: process.version }, value: 1 }]));
  stack.use(
    meters.eventLoopLag.track(() => {
      // The histogram has whole intervals between its timers; late is what is beyond the interval.
      const samples = QUANTILES.map((quantile) => ({
        labels: { quantile: String(quantile) },
        value:
          lag.count === 0 ? 0 : Math.max(0, lag.percentile(quantile * 100) / 1e9 - LAG_RESOLUTION_MS / 1000),
      }));
      lag.reset();
      return samples;
    }),
  );
  stack.use(
    meters.cpu.track(() => {
      const { user, system } = process.cpuUsage();
      return one((user + system) / 1e6);
    }),
  );
  stack.use(meters.memory.track(() => one(process.memoryUsage.rss())));
  stack.use(meters.heap.track(() => one(process.memoryUsage().heapUsed)));
  stack.use(meters.descriptors.track(async () => one((await readdir("/proc/self/fd")).length)));
  stack.use(meters.started.track(() => one(startedMs / 1000)));
  return stack;
}
