/** The meters of this process as a page of Prometheus's text format 0.0.4, by its client library, which is loaded only now. */
import type { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Meter, Sample, Sink } from "./meter.ts";

export interface Exposition extends Disposable {
  readonly contentType: string;
  /** Scrapes at the same time share one page. */
  page(): Promise<string>;
}

export interface ExposeOptions {
  /** Becomes a label of every series. */
  readonly role: string;
  /** Told of a reader that failed; its series are missing from that page, and the others are there. */
  readonly onFault: (meter: Meter, error: unknown) => void;
}

export async function expose(all: readonly Meter[], { role, onFault }: ExposeOptions): Promise<Exposition> {
  const library = await loadLibrary();
  const registry = new library.Registry();
  registry.setDefaultLabels({ role });
  using connected = new DisposableStack();
  for (const meter of all) connected.use(connect(library, registry, meter, onFault));
  const connections = connected.move();
  let running: Promise<string> | undefined;
  return {
    contentType: registry.contentType,
    page: () => (running ??= registry.metrics().finally(() => (running = undefined))),
    [Symbol.dispose]: () => connections.dispose(),
  };
}

/** Its parts one by one: the whole also loads default metrics that are not ours, and costs 18 MB more. */
async function loadLibrary() {
  const [registry, counters, gauges, histograms] = await Promise.all([
    import("prom-client/lib/registry.js"),
    import("prom-client/lib/counter.js"),
    import("prom-client/lib/gauge.js"),
    import("prom-client/lib/histogram.js"),
  ]);
  return {
    Registry: registry.default,
    Counter: counters.default,
    Gauge: gauges.default,
    Histogram: histograms.default,
  };
}

type Library = Awaited<ReturnType<typeof loadLibrary>>;

function connect(
  library: Library,
  registry: Registry,
  meter: Meter,
  onFault: ExposeOptions["onFault"],
): Disposable {
  const { kind, name, help, readers } = meter;
  const common = { name, help, labelNames: [...meter.labels], registers: [registry] };
  const refuse = () => {
    throw new Error(`${name} is a ${kind}`);
  };
  if (kind === "histogram") {
    let isSeen = false;
    const histogram = new library.Histogram({
      ...common,
      buckets: [...meter.buckets],
      collect(this: Histogram) {
        // One without labels would stand there with all its buckets in roles that never measure it.
        if (!isSeen) this.remove({});
      },
    });
    return meter.connect({
      add: refuse,
      observe(labels, value) {
        isSeen = true;
        histogram.observe(labels, value);
      },
    });
  }
  const Kind = kind === "counter" ? library.Counter : library.Gauge;
  let isUsed = kind === "counter";
  const series = new Kind({
    ...common,
    async collect(this: Counter | Gauge) {
      if (readers.size > 0) await readInto(this, meter, onFault);
      // The library begins at 0, which is a fine count of nothing, and a lie about a time or a size.
      else if (!isUsed) this.remove({});
    },
  });
  const sink: Sink = {
    add(labels, by) {
      isUsed = true;
      series.inc(labels, by);
    },
    observe: refuse,
  };
  return meter.connect(sink);
}

/** Readers of equal labels add up: the wires of two stores are the wires of the process. */
async function readInto(
  series: Counter | Gauge,
  meter: Meter,
  onFault: ExposeOptions["onFault"],
): Promise<void> {
  const samples: Sample<string>[] = [];
  for (const read of meter.readers) {
    try {
      samples.push(...(await read()));
    } catch (error) {
      onFault(meter, error);
    }
  }
  series.reset();
  if (samples.length === 0) series.remove({});
  for (const { labels, value } of samples) series.inc(labels, value);
}
