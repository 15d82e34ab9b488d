/**
 * Programs that run before a wire needs them: starting one takes longer than all else that a wire needs of the kernel.
 *
 *     idle ── a wire begins ──► in use ── the last wire has gone ──► lingering ── LINGER_MS ──► idle, spares ended
 *
 * In use, a program that is taken is replaced a moment later, when the Request that took it is answered. A node without such
 * wires has no process.
 */
import type { Clock } from "../../../sdk/clock.ts";
import type { Program } from "./program.ts";

/** The answer is on its way by then; started at once, the new one would be in its way. */
const REFILL_AFTER_MS = 30;
const LINGER_MS = 250;

export interface SparesOptions {
  /** As many wait. 0: each is started when it is taken. */
  readonly count: number;
  readonly start: () => Promise<Program>;
  /** Where it waits; rejects when it has been ended instead. */
  readonly park: (program: Program) => Promise<Program>;
  readonly stop: (program: Program) => Promise<void>;
  readonly clock: Clock;
}

export interface Spares extends AsyncDisposable {
  /** One that runs; the caller's from then on. Throws like `start`. */
  take(): Promise<Program>;
  /** A wire begins, or has been found. */
  use(wireId: string): void;
  leave(wireId: string): void;
}

export function createSpares({ count, start, park, stop, clock }: SparesOptions): Spares {
  const users = new Set<string>();
  const ready: Program[] = [];
  /** Taken by nobody yet. Undefined: it could not be started, and is not tried again until the next one is taken. */
  const starting = new Set<Promise<Program | undefined>>();
  const ending = new Set<Promise<void>>();
  const timers: { refill?: Disposable | undefined; linger?: Disposable | undefined } = {};
  let isClosed = false;

  function cancel(which: keyof typeof timers): void {
    timers[which]?.[Symbol.dispose]();
    timers[which] = undefined;
  }
  function after(which: keyof typeof timers, delayMs: number, run: () => void): void {
    if (isClosed) return;
    timers[which] ??= clock.timer(delayMs, () => {
      timers[which] = undefined;
      run();
    });
  }
  const isInUse = () => !isClosed && (users.size > 0 || timers.linger !== undefined);
  const refillSoon = () => after("refill", REFILL_AFTER_MS, refill);

  function refill(): void {
    if (!isInUse() || ready.length + starting.size >= count) return;
    const begun: Promise<Program | undefined> = start()
      .then(park)
      .catch(() => undefined);
    starting.add(begun);
    void begun.then((program) => {
      if (!starting.delete(begun) || program === undefined) return;
      if (isInUse()) ready.push(program);
      else discard(program);
      refill();
    });
  }
  function discard(program: Program): void {
    const end = stop(program).catch(() => undefined);
    ending.add(end);
    void end.then(() => ending.delete(end));
  }
  const discardAll = () => {
    for (const program of ready.splice(0)) discard(program);
  };

  return {
    async take() {
      refillSoon();
      for (let next = ready.shift(); next !== undefined; next = ready.shift()) {
        if (!next.hasEnded()) return next;
        discard(next); // its socket
      }
      const [begun] = starting;
      if (begun !== undefined) starting.delete(begun);
      return (await begun) ?? (await start());
    },
    use(wireId) {
      users.add(wireId);
      cancel("linger");
      refillSoon();
    },
    leave(wireId) {
      if (users.delete(wireId) && users.size === 0) after("linger", LINGER_MS, discardAll);
    },
    async [Symbol.asyncDispose]() {
      isClosed = true;
      cancel("refill");
      cancel("linger");
      await Promise.all(starting);
      discardAll();
      await Promise.all(ending);
    },
  };
}
