/** Processes that were stopped (SIGSTOP, a freezer of a debugger): their kernel goes on answering for them (proc_pid_stat(5)). */
import type { Clock } from "../../sdk/clock.ts";
import { openProcessLook } from "../kernel/proc-stat.ts";

/** There is no event for it. */
const LOOK_EVERY_MS = 100;
/** Once is a shell's pause between two commands of somebody who looks at it. */
const LOOKS = 2;
/** All threads of it. */
const STOPPED = "T";

export interface StopWatch extends Disposable {
  /** Tells each time that the process is found stopped after it was not; until disposed. */
  watch(pid: number, onStopped: () => void): Disposable;
  /** True when all threads of the process are stopped, false when it has ended: as of the last look at one that is watched, else as of now. */
  isStopped(pid: number): boolean;
}

/** How one process is looked at, again and again. */
export interface Look extends Disposable {
  /** As `/proc` has it; undefined when the process has ended. */
  state(): string | undefined;
}

interface Listener {
  readonly onStopped: () => void;
  looks: number;
}

/** A process with its listeners: there may be hundreds, one a wire. */
interface Watched {
  readonly process: Look;
  readonly listeners: Set<Listener>;
  /** As of the last look; undefined before the first. */
  wasStopped: boolean | undefined;
}

/** State: one timer for all processes, one descriptor a process that is watched. A look at a hundred takes less than a millisecond. */
export function createStopWatch(clock: Clock, open: (pid: number) => Look = openLook): StopWatch {
  const all = new Map<number, Watched>();
  let timer: Disposable | undefined;
  const look = () => {
    for (const watched of all.values()) {
      watched.wasStopped = watched.process.state() === STOPPED;
      for (const listener of watched.listeners) {
        listener.looks = watched.wasStopped ? listener.looks + 1 : 0;
        if (listener.looks === LOOKS) listener.onStopped();
      }
    }
    timer = all.size > 0 ? clock.timer(LOOK_EVERY_MS, look) : undefined;
  };
  const forget = (pid: number) => {
    all.get(pid)?.process[Symbol.dispose]();
    all.delete(pid);
  };
  const watchedOf = (pid: number): Watched => {
    const known = all.get(pid);
    if (known?.process.state() !== undefined) return known;
    forget(pid); // an earlier process that had this pid
    const process = open(pid);
    const watched = { process, listeners: new Set<Listener>(), wasStopped: undefined };
    all.set(pid, watched);
    return watched;
  };
  const now = (pid: number) => {
    using process = open(pid);
    return process.state() === STOPPED;
  };
  return {
    watch(pid, onStopped) {
      const watched = watchedOf(pid);
      const listener = { onStopped, looks: 0 };
      watched.listeners.add(listener);
      timer ??= clock.timer(LOOK_EVERY_MS, look);
      return {
        [Symbol.dispose]() {
          const { listeners } = watched;
          if (listeners.delete(listener) && listeners.size === 0 && all.get(pid) === watched) forget(pid);
        },
      };
    },
    isStopped: (pid) => all.get(pid)?.wasStopped ?? now(pid),
    [Symbol.dispose]() {
      timer?.[Symbol.dispose]();
      for (const pid of all.keys()) forget(pid);
    },
  };
}

function openLook(pid: number): Look {
  const process = openProcessLook(pid);
  return {
    state: () => process?.read()?.state,
    [Symbol.dispose]: () => process?.[Symbol.dispose](),
  };
}
