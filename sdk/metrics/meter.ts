/**
 * Metrics of this process, counted where things happen. Until an exposition connects them (`expose.ts`) each call is one test of
 * a variable, so they may stand on the hottest path.
 */

export type Labels<L extends string> = Readonly<Record<L, string>>;

export interface Sample<L extends string> {
  readonly labels: Labels<L>;
  readonly value: number;
}

/** Reads a value that is kept elsewhere; called once a scrape. */
export type Reader<L extends string> = () => Iterable<Sample<L>> | Promise<Iterable<Sample<L>>>;

/** Where what is counted goes. */
export interface Sink {
  add(labels: Readonly<Record<string, string>>, by: number): void;
  observe(labels: Readonly<Record<string, string>>, value: number): void;
}

export type MeterKind = "counter" | "gauge" | "histogram";

/** What the exposition and the documentation know of a metric. */
export interface Meter {
  readonly kind: MeterKind;
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
  /** Upper bounds of a histogram. */
  readonly buckets: readonly number[];
  readonly readers: ReadonlySet<Reader<string>>;
  /** From now on values go there, until it is disposed. */
  connect(sink: Sink): Disposable;
}

export interface Counter<L extends string> extends Meter {
  inc(labels: Labels<L>, by?: number): void;
  /** A total that is kept elsewhere. A counter has either readers or calls of `inc`. */
  track(read: Reader<L>): Disposable;
}

export interface Gauge<L extends string> extends Meter {
  add(labels: Labels<L>, by: number): void;
  /** A value that is kept elsewhere. A gauge has either readers or calls of `add`. */
  track(read: Reader<L>): Disposable;
}

export interface Histogram<L extends string> extends Meter {
  observe(labels: Labels<L>, value: number): void;
}

/** `name` begins with `nsm_` and ends with `_total`; `labels` have few values, and none that a client chooses. */
export function counter<const L extends string = never>(
  name: string,
  help: string,
  labels: readonly L[] = [],
): Counter<L> {
  const meter = createMeter<L>("counter", name, help, labels);
  return Object.assign(meter, { inc: (values: Labels<L>, by = 1) => meter.add(values, by) });
}

export function gauge<const L extends string = never>(
  name: string,
  help: string,
  labels: readonly L[] = [],
): Gauge<L> {
  return createMeter<L>("gauge", name, help, labels);
}

export function histogram<const L extends string = never>(
  name: string,
  help: string,
  labels: readonly L[],
  buckets: readonly number[],
): Histogram<L> {
  return createMeter<L>("histogram", name, help, labels, buckets);
}

function createMeter<L extends string>(
  kind: MeterKind,
  name: string,
  help: string,
  labels: readonly L[],
  buckets: readonly number[] = [],
) {
  let sink: Sink | undefined;
  const readers = new Set<Reader<L>>();
  return {
    kind,
    name,
    help,
    labels,
    buckets,
    readers,
    add(values: Labels<L>, by: number): void {
      sink?.add(values, by);
    },
    observe(values: Labels<L>, value: number): void {
      sink?.observe(values, value);
    },
    track(read: Reader<L>): Disposable {
      readers.add(read);
      return { [Symbol.dispose]: () => void readers.delete(read) };
    },
    connect(to: Sink): Disposable {
      sink = to;
      return {
        [Symbol.dispose]() {
          if (sink === to) sink = undefined;
        },
      };
    },
  };
}
