/** What the bench asks its client processes to do; the two ends of one pipe. */

/** One kind of wire to ask for. */
export interface WireWish {
  readonly service: string;
  /** Of the client's device; `%` stands for the number of the wire. */
  readonly interfaceName: string;
}

/** Latencies in milliseconds of what worked, and what did not. */
export interface Timings {
  readonly requestMs: number[];
  readonly closeMs: number[];
  /** One text a failure. */
  readonly failed: string[];
}

export interface RegistryTimings {
  readonly totalMs: number;
  readonly eachMs: number[];
  readonly failed: string[];
}

/** All arguments and results are plain JSON. */
export interface Commands {
  /** Request and Close, one pair after the other, each device looked for after both. */
  pairs(wish: WireWish, count: number): Promise<Timings>;
  /** Opens wires and keeps them. */
  hold(wish: WireWish, count: number, parallel: number): Promise<Timings>;
  /** Refreshes the wires that it holds, in turn. */
  refresh(count: number): Promise<Timings>;
  /** Closes what it holds. */
  release(parallel: number): Promise<Timings>;
  /** Registers endpoints `bench-<from>` to `bench-<to - 1>`, `perService` of them in each of the services. */
  register(
    url: string,
    range: { from: number; to: number; perService: number },
    parallel: number,
  ): Promise<RegistryTimings>;
  /** Finds by service, `count` times, and fails unless each answer has `expected` endpoints. */
  find(
    url: string,
    services: number,
    expected: number,
    count: number,
    parallel: number,
  ): Promise<RegistryTimings>;
}
