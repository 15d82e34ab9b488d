/**
 * The endpoints that a supplier has started: one for each order, ended with it (docs/protocol.md, "Endpoints on demand").
 *
 *   none --request--> running --exit 0--> none       running --exit with a fault--> resting --back-off--> none
 */
import { createBackoff } from "../../sdk/backoff.ts";
import type { Backoff } from "../../sdk/backoff.ts";
import type { Clock } from "../../sdk/clock.ts";
import { NsmError } from "../../sdk/errors.ts";
import type { Logger } from "../../sdk/log.ts";
import type { Order } from "./template.ts";

/** A child, as the supplier needs it. */
export interface Child {
  readonly pid: number;
  /** Exit code, or the signal's name; rejects when it could not be started. */
  readonly ended: Promise<number | string>;
  /** Asks it to end, then makes it; resolves when it has. */
  stop(): Promise<void>;
}

export interface SupplyOptions {
  readonly start: (order: Order) => Child;
  /** At the same time. */
  readonly limit: number;
  /** Children outlive the supplier. */
  readonly keep: boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Started {
  child: Child | undefined;
  /** Monotonic; not before this is it started again. */
  restUntilMs: number;
  readonly backoff: Backoff;
}

/** Faults of a child before it is given up for longer and longer. */
const FIRST_REST_MS = 1000;
const LONGEST_REST_MS = 60_000;
/** Orders that are remembered for their faults. */
const MOST_RESTING = 1000;

export interface Supply extends AsyncDisposable {
  /** Sees to it that an endpoint for the order runs. Always rejects: UNAVAILABLE `endpoint-starting`, `endpoint-failed`; RESOURCE_EXHAUSTED `too-many-endpoints`. */
  ask(order: Order): Promise<never>;
  readonly running: number;
}

export function createSupply(options: SupplyOptions): Supply {
  const { clock, log, limit } = options;
  const orders = new Map<string, Started>();
  let isClosed = false;
  const running = () => [...orders.values()].flatMap(({ child }) => child ?? []);

  const start = (order: Order, known: Started | undefined) => {
    const started = known ?? {
      child: undefined,
      restUntilMs: 0,
      backoff: createBackoff({ firstMs: FIRST_REST_MS, maxMs: LONGEST_REST_MS }),
    };
    orders.set(order.key, started);
    const onEnd = (how: unknown) => {
      const pid = started.child?.pid;
      started.child = undefined;
      if (how === 0) {
        orders.delete(order.key);
        log.info({ pid }, "endpoint ended by itself");
        return;
      }
      const restMs = started.backoff.next();
      started.restUntilMs = clock.monotonic() + restMs;
      forgetOldest(orders);
      if (!isClosed) log.warn({ pid, err: how, restMs: Math.round(restMs) }, "endpoint failed");
    };
    let child: Child;
    try {
      child = options.start(order);
    } catch (error) {
      onEnd(error); // a label that no argument can hold, or more of them than the kernel takes
      return undefined;
    }
    started.child = child;
    log.info({ pid: child.pid, command: order.command }, "endpoint started");
    child.ended.then(onEnd, onEnd);
    return child;
  };

  const refusalOf = (order: Order): NsmError => {
    if (isClosed) return new NsmError("UNAVAILABLE", "stopping", "the supplier is stopping");
    const known = orders.get(order.key);
    if (known?.child !== undefined) return isStarting(known.child);
    const restMs = (known?.restUntilMs ?? 0) - clock.monotonic();
    if (restMs > 0) return hasFailed(restMs);
    if (running().length >= limit)
      return new NsmError(
        "RESOURCE_EXHAUSTED",
        "too-many-endpoints",
        `${limit} endpoints run already, which is the most that this supplier starts (NSM_SUPPLY_LIMIT)`,
      );
    const child = start(order, known);
    return child === undefined ? hasFailed(FIRST_REST_MS) : isStarting(child);
  };

  return {
    get running() {
      return running().length;
    },
    ask: (order) => Promise.reject(refusalOf(order)),
    async [Symbol.asyncDispose]() {
      isClosed = true;
      if (options.keep) return;
      await Promise.all(running().map((child) => child.stop()));
    },
  };
}

function isStarting(child: Child): NsmError {
  return new NsmError(
    "UNAVAILABLE",
    "endpoint-starting",
    `an endpoint is being started (process ${child.pid}): ask again in a moment`,
  );
}

function hasFailed(restMs: number): NsmError {
  return new NsmError(
    "UNAVAILABLE",
    "endpoint-failed",
    `the endpoint that was started has failed, it is started again in ${Math.ceil(restMs / 1000)} s at the earliest: see the supplier's log`,
  );
}

function forgetOldest(orders: Map<string, Started>): void {
  if (orders.size <= MOST_RESTING) return;
  const oldest = [...orders].find(([, { child }]) => child === undefined);
  if (oldest !== undefined) orders.delete(oldest[0]);
}
