/** Keeps a record registered: again before it expires, and as soon as the registry may have lost it (docs/protocol.md, "Registry"). */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { createBackoff } from "../backoff.ts";
import { delay } from "../clock.ts";
import type { Clock } from "../clock.ts";
import { messageOf } from "../errors.ts";
import type { Logger } from "../log.ts";
import { EMPTY_PATH } from "../registry-path.ts";
import type { Registry, RegistryContext } from "./registry.ts";

/** Part of the remaining life after which a registration is renewed; the value of the Go clients. */
const RENEW_AT = 2 / 3;
const CALL_TIMEOUT_MS = 15_000;
/** A watch that held for so long was none that the registry refuses. */
const STEADY_MS = 1000;

export interface RegistrantOptions<T> {
  readonly registry: Registry<T>;
  /** The record to register, made anew for each call. */
  readonly entry: () => T;
  /** Names the record alone: what the watch asks for. */
  readonly query: T;
  /** For log lines: `endpoint nse-1`. */
  readonly what: string;
  /** Unregister at the end. */
  readonly unregister: boolean;
  /** Called after each success: the registry, and the way to it, are there. */
  readonly onRegistered?: () => void;
  readonly clock: Clock;
  readonly log: Logger;
  /** Decides about a registration that failed: true counts as registered (somebody else's equal record), false tries again. */
  readonly accept?: (error: unknown) => Promise<boolean>;
}

interface Record {
  readonly name: string;
  readonly expirationTime?: Timestamp | undefined;
}

export interface Registrant extends AsyncDisposable {
  /** Resolves after the first success; never rejects: it is tried again until disposed. */
  readonly registered: Promise<void>;
}

export function keepRegistered<T extends Record>(options: RegistrantOptions<T>): Registrant {
  const stop = new AbortController();
  const first = Promise.withResolvers<void>();
  const running = run(options, stop.signal, first.resolve);
  return {
    registered: first.promise,
    async [Symbol.asyncDispose]() {
      if (stop.signal.aborted) return;
      stop.abort();
      await running;
      if (!options.unregister) return;
      await options.registry
        .unregister(options.entry(), callContext(AbortSignal.timeout(2000)))
        .catch((err: unknown) => {
          options.log.info({ err }, `${options.what}: unregistering failed; the record runs out by itself`);
        });
    },
  };
}

async function run<T extends Record>(
  options: RegistrantOptions<T>,
  signal: AbortSignal,
  onFirst: () => void,
): Promise<void> {
  const { log, what, clock } = options;
  const backoff = createBackoff();
  let isRegistered = false;
  while (!signal.aborted) {
    try {
      const expiryMs = await register(options, signal);
      if (!isRegistered) log.info(`${what} registered`);
      isRegistered = true;
      onFirst();
      options.onRegistered?.();
      const watchedMs = clock.monotonic();
      const isShown = await untilRenewal(
        options,
        expiryMs === undefined ? undefined : (expiryMs - clock.now()) * RENEW_AT,
        signal,
      );
      // Who takes the record but lets nobody watch it is asked ever more seldom, too.
      if (isShown || clock.monotonic() - watchedMs >= STEADY_MS) backoff.reset();
    } catch (err) {
      if (signal.aborted) return;
      log.warn({ err }, `${what}: not registered yet, trying again: ${messageOf(err)}`);
    }
    if (!signal.aborted) await delay(backoff.next(), signal).catch(() => undefined);
  }
}

async function register<T extends Record>(
  options: RegistrantOptions<T>,
  signal: AbortSignal,
): Promise<number | undefined> {
  const bounded = AbortSignal.any([signal, AbortSignal.timeout(CALL_TIMEOUT_MS)]);
  try {
    const stored = await options.registry.register(options.entry(), callContext(bounded));
    return stored.expirationTime && timestampMs(stored.expirationTime);
  } catch (error) {
    if (!signal.aborted && (await options.accept?.(error)) === true) return undefined;
    throw error;
  }
}

/**
 * Until the record is due, or the watch on it ends: then the registry, or the way to it, was lost. True when the watch has shown the
 * record: one that ends soon after was cut by the end of whoever served it.
 */
async function untilRenewal<T extends Record>(
  options: RegistrantOptions<T>,
  delayMs: number | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  let isShown = false;
  const due = new AbortController();
  using timer = delayMs === undefined ? undefined : options.clock.timer(delayMs, () => due.abort());
  void timer;
  const until = AbortSignal.any([signal, due.signal]);
  try {
    for await (const { deleted } of options.registry.find(
      { entry: options.query, watch: true },
      { signal: until },
    )) {
      if (deleted) return false; // somebody took it out while we live
      isShown = true;
    }
  } catch (err) {
    if (!until.aborted) options.log.info({ err }, `${options.what}: the watch broke, registering again`);
  }
  return isShown;
}

function callContext(signal: AbortSignal): RegistryContext {
  return { signal, deadlineMs: undefined, peer: undefined, registration: { path: EMPTY_PATH } };
}
