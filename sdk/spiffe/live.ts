/**
 * A value that a stream of the Workload API keeps up to date: connect, take each message as the whole new state, reconnect.
 *
 *     waiting ──message──> ready ──message──> ready
 *                           │ ▲
 *          PERMISSION_DENIED▼ │message
 *                        withdrawn
 *
 * A stream that ends or fails leaves a ready value as it is: it stays in use until its own end (SPIFFE standard "Workload API",
 * §4). INVALID_ARGUMENT and UNIMPLEMENTED are never retried.
 */
import { createBackoff } from "../backoff.ts";
import { delay } from "../clock.ts";
import type { Clock } from "../clock.ts";
import { NsmError, messageOf } from "../errors.ts";
import type { CodeName } from "../errors.ts";
import type { Logger } from "../log.ts";

/** A server answers a new stream at once; one that does not within this is treated as unavailable. */
const FIRST_MESSAGE_MS = 10_000;
/** A process that ends for want of an identity is only started again. */
const SILENT_MS = 30_000;
/** The API is on this machine, and its return ends an outage. */
const LONGEST_PAUSE_MS = 1000;
const NEVER_RETRIED: ReadonlySet<CodeName> = new Set(["INVALID_ARGUMENT", "UNIMPLEMENTED"]);

export interface Live<T> extends AsyncDisposable {
  /** The newest value. Throws UNAVAILABLE `identity-withdrawn`. */
  current(): T;
  /** Calls `listener` after each change, until disposed. */
  onChange(listener: (value: T) => void): Disposable;
}

export interface LiveOptions<M, T> {
  /** What is kept, for messages: `X509-SVID`. */
  readonly what: string;
  /** The API's address as configured, for messages. */
  readonly socket: string;
  /** Opens one stream that ends when `signal` aborts. */
  readonly open: (signal: AbortSignal) => AsyncIterable<M>;
  /** The value of a message; `previous` itself when nothing changed. Throws to discard the message and keep `previous`. */
  readonly read: (message: M, previous: T | undefined) => T;
  /** How long the first value may take where nobody listens, or somebody refuses. */
  readonly waitMs: number;
  /** And where somebody listens and has said nothing yet, which a busy machine may need; no less than `waitMs`. Default 30 s. */
  readonly silentMs?: number | undefined;
  readonly log: Logger;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

type State<T> =
  | { readonly kind: "waiting"; readonly fault: NsmError | undefined }
  | { readonly kind: "ready"; readonly value: T }
  | { readonly kind: "withdrawn"; readonly fault: NsmError };

/**
 * Resolves with the first value. Throws what the last attempt failed with once the patience is over (UNAVAILABLE
 * `identity-unavailable`, PERMISSION_DENIED), or INVALID_ARGUMENT and UNIMPLEMENTED at once.
 */
export async function openLive<M, T>(options: LiveOptions<M, T>): Promise<Live<T>> {
  const { what, socket, log, clock, waitMs, silentMs = SILENT_MS } = options;
  const controller = new AbortController();
  const signal = AbortSignal.any([options.signal, controller.signal]);
  const listeners = new Set<(value: T) => void>();
  const started = Promise.withResolvers<void>();
  let state: State<T> = { kind: "waiting", fault: undefined };
  // Outlives a withdrawal, so that the next value can be counted on from it.
  let previous: T | undefined;

  const take = (message: M) => {
    let value: T;
    try {
      value = options.read(message, previous);
    } catch (err) {
      if (state.kind === "waiting") state = { kind: "waiting", fault: faultOf(options, err) };
      log.error({ err, socket }, `bad ${what} message from the Workload API, it is discarded`);
      return;
    }
    const isChange = state.kind !== "ready" || value !== previous;
    state = { kind: "ready", value };
    previous = value;
    started.resolve();
    if (isChange) for (const listener of listeners) notify(listener, value, log);
  };

  const fail = (fault: NsmError) => {
    if (state.kind === "waiting") {
      if (state.fault === undefined) log.warn({ err: fault, socket }, `no ${what} yet, trying again`);
      state = { kind: "waiting", fault };
    } else if (fault.code === "PERMISSION_DENIED") {
      if (state.kind === "ready") log.error({ err: fault, socket }, `${what} withdrawn by the Workload API`);
      state = { kind: "withdrawn", fault };
    } else log.warn({ err: fault, socket }, `${what} stream failed, the last one stays in use`);
  };

  const giveUp = () =>
    started.reject(
      state.kind === "waiting" && state.fault !== undefined ? state.fault : faultOf(options, "no answer"),
    );
  let timer = clock.timer(waitMs, () => {
    if (state.kind !== "waiting" || state.fault !== undefined) giveUp();
    else timer = clock.timer(silentMs - waitMs, giveUp);
  });
  const running = follow(options, signal, take, fail).then(
    () => started.reject(new NsmError("CANCELLED", "cancelled", `waiting for ${what} was cancelled`)),
    (error: unknown) => started.reject(error),
  );
  const close = async () => {
    controller.abort();
    await running;
  };
  try {
    await started.promise;
  } catch (error) {
    await close();
    throw error;
  } finally {
    timer[Symbol.dispose]();
  }
  return {
    current() {
      if (state.kind === "ready") return state.value;
      const why = state.fault?.message ?? "it never came";
      const text = `${what} withdrawn by the Workload API at ${socket}: ${why}`;
      throw new NsmError("UNAVAILABLE", "identity-withdrawn", text);
    },
    onChange(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    [Symbol.asyncDispose]: close,
  };
}

/** Streams one after the other until `signal` aborts. Throws what must not be retried. */
async function follow<M, T>(
  options: LiveOptions<M, T>,
  signal: AbortSignal,
  take: (message: M) => void,
  fail: (fault: NsmError) => void,
): Promise<void> {
  const backoff = createBackoff({ maxMs: LONGEST_PAUSE_MS });
  while (!signal.aborted) {
    let received = false;
    try {
      for await (const message of withFirstDeadline(options, signal)) {
        received = true;
        take(message);
      }
    } catch (error) {
      if (signal.aborted) return;
      const fault = faultOf(options, error);
      if (NEVER_RETRIED.has(fault.code)) throw fault;
      fail(fault);
      received &&= fault.code !== "PERMISSION_DENIED";
    }
    // The pause grows only while streams bring nothing; after one that did, the next follows almost at once.
    if (received) backoff.reset();
    await pause(backoff.next(), signal);
  }
}

async function* withFirstDeadline<M, T>(options: LiveOptions<M, T>, signal: AbortSignal): AsyncGenerator<M> {
  const attempt = new AbortController();
  let isLate = false;
  using timer = options.clock.timer(FIRST_MESSAGE_MS, () => {
    isLate = true;
    attempt.abort();
  });
  try {
    for await (const message of options.open(AbortSignal.any([signal, attempt.signal]))) {
      timer[Symbol.dispose]();
      yield message;
    }
  } catch (error) {
    throw isLate ? new Error(`no answer within ${FIRST_MESSAGE_MS / 1000} s`) : error;
  }
}

async function pause(delayMs: number, signal: AbortSignal): Promise<void> {
  try {
    await delay(delayMs, signal);
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

function notify<T>(listener: (value: T) => void, value: T, log: Logger): void {
  try {
    listener(value);
  } catch (err) {
    log.error({ err }, "listener for a changed identity failed");
  }
}

/** What a stream failed with, in words that say what to do. Anything but a refusal counts as a server that is not there. */
function faultOf<M, T>({ what, socket }: LiveOptions<M, T>, error: unknown): NsmError {
  const code = error instanceof NsmError ? error.code : "UNAVAILABLE";
  if (code === "PERMISSION_DENIED" || NEVER_RETRIED.has(code)) {
    const text = `the Workload API at ${socket} refuses ${what}: ${messageOf(error)}`;
    return new NsmError(code, "identity-refused", text, error);
  }
  return new NsmError(
    "UNAVAILABLE",
    "identity-unavailable",
    `no ${what} from the Workload API at ${socket} (SPIFFE_ENDPOINT_SOCKET): ${messageOf(error)}. Start the built-in authority with "nsm identity", or set SPIFFE_ENDPOINT_SOCKET to the socket of a SPIRE agent.`,
    error,
  );
}
