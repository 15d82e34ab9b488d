/** Processes that were stopped (SIGSTOP, a freezer of a debugger): their kernel goes on answering for them (proc_pid_stat(5)). */
import type { Clock } from "../sdk/clock.ts";
import { readProcessStat } from "./proc-stat.ts";

/** There is no event for it. */
const LOOK_EVERY_MS = 100;
/** Once is a shell's pause between two commands of somebody who looks at it. */
const LOOKS = 2;

/** True for a process whose threads are all stopped; false for one that has ended. */
export function isStopped(pid: number): boolean {
  return readProcessStat(pid)?.state === "T";
}

export interface StopWatch extends Disposable {
  /** Tells each time that the process is found stopped after it was not; until disposed. */
  watch(pid: number, onStopped: () => void): Disposable;
  /** As of the last look at a process that is watched, else as of now. */
  isStopped(pid: number): boolean;
}

interface Watched {
  readonly pid: number;
  readonly onStopped: () => void;
  looks: number;
}

/** State: one timer for all processes. */
export function createStopWatch(clock: Clock, stopped: (pid: number) => boolean = isStopped): StopWatch {
  const all = new Set<Watched>();
  /** By process that is watched. */
  let seen = new Map<number, boolean>();
  let timer: Disposable | undefined;
  const look = () => {
    seen = new Map();
    for (const watched of all) {
      const { pid } = watched;
      if (!seen.has(pid)) seen.set(pid, stopped(pid));
      watched.looks = seen.get(pid) === true ? watched.looks + 1 : 0;
      if (watched.looks === LOOKS) watched.onStopped();
    }
    timer = all.size > 0 ? clock.timer(LOOK_EVERY_MS, look) : undefined;
  };
  return {
    watch(pid, onStopped) {
      const watched = { pid, onStopped, looks: 0 };
      all.add(watched);
      timer ??= clock.timer(LOOK_EVERY_MS, look);
      return {
        [Symbol.dispose]() {
          all.delete(watched);
          // What nobody looks at any more may have changed.
          if (![...all].some((other) => other.pid === pid)) seen.delete(pid);
        },
      };
    },
    isStopped: (pid) => seen.get(pid) ?? stopped(pid),
    [Symbol.dispose]() {
      timer?.[Symbol.dispose]();
      all.clear();
    },
  };
}
