/** Sockets of endpoints on this node: opened so that no path of theirs can mislead us (docs/protocol.md, "Namespaces"). */
import { statSync } from "node:fs";
import type { Clock } from "../../sdk/clock.ts";
import type { NextHop } from "../../sdk/elements/target.ts";
import { NsmError } from "../../sdk/errors.ts";
import { openForeignSocket, parseForeignUrl } from "../../sdk/grpc/foreign.ts";
import type { ForeignSocket } from "../../sdk/grpc/foreign.ts";
import { holdProcess, whenEnded } from "../../sdk/grpc/process.ts";
import type { Target } from "../../sdk/grpc/sessions.ts";
import { createStopWatch } from "./stopped.ts";

/** How often sockets whose listener is dead are looked for. */
const SWEEP_MS = 30_000;

export interface EndpointSockets extends Disposable {
  readonly targetOf: (hop: NextHop) => Target;
  /** Pid of the process that listens on a local hop's socket. Throws UNAVAILABLE `endpoint-gone`. */
  readonly listenerOf: (hop: NextHop) => number;
  /** False once that process has ended; true for hops on other nodes. */
  readonly isAlive: (hop: NextHop) => boolean;
  /** Calls back once when that process has ended, or was stopped; never for hops on other nodes. */
  readonly whenEnded: (hop: NextHop, onEnded: () => void) => Disposable;
  /** Throws UNAVAILABLE `endpoint-stopped` when that process was stopped: it would keep us waiting. */
  readonly refuseStopped: (hop: NextHop) => void;
}

/** State: one open socket per endpoint, closed when its listener is found dead: before another is opened, and from time to time. */
export function createEndpointSockets(clock: Clock): EndpointSockets {
  const sockets = new Map<string, ForeignSocket>();
  const stopWatch = createStopWatch(clock);
  const drop = (url: string) => {
    sockets.get(url)?.[Symbol.dispose]();
    sockets.delete(url);
  };
  const dropDead = () => {
    for (const [url, { listener }] of sockets) if (!listener.isAlive()) drop(url);
  };
  const sweep = () => {
    dropDead();
    timer = clock.timer(SWEEP_MS, sweep);
  };
  let timer = clock.timer(SWEEP_MS, sweep);
  const socketOf = (hop: NextHop): ForeignSocket | undefined => {
    const foreign = parseForeignUrl(hop.url);
    if (foreign === undefined) return undefined;
    const known = sockets.get(hop.url);
    if (known?.listener.isAlive() === true) return known;
    dropDead();
    const opened = openForeignSocket(foreign);
    try {
      refuseOtherNamespace(opened, hop.url);
    } catch (error) {
      opened[Symbol.dispose]();
      throw error;
    }
    sockets.set(hop.url, opened);
    return opened;
  };
  return {
    targetOf(hop) {
      const socket = socketOf(hop);
      return socket === undefined ? hop : { ...hop, ...socket.target };
    },
    listenerOf(hop) {
      const socket = socketOf(hop);
      if (socket !== undefined) return socket.listener.pid;
      throw new NsmError(
        "UNAVAILABLE",
        "endpoint-gone",
        `${hop.url} is not the socket of an endpoint of this node`,
      );
    },
    isAlive(hop) {
      const known = sockets.get(hop.url);
      return known === undefined ? parseForeignUrl(hop.url) === undefined : known.listener.isAlive();
    },
    whenEnded(hop, onEnded) {
      const process = sockets.get(hop.url)?.listener;
      // A descriptor of its own: the socket's is closed as soon as somebody finds the process dead.
      const held = process && holdProcess(process);
      if (held === undefined) return { [Symbol.dispose]: () => undefined };
      const stack = new DisposableStack();
      stack.use(held);
      stack.use(whenEnded(held, clock, onEnded));
      stack.use(stopWatch.watch(held.pid, onEnded));
      return stack;
    },
    refuseStopped(hop) {
      const pid = socketOf(hop)?.listener.pid;
      if (pid === undefined || !stopWatch.isStopped(pid)) return;
      throw new NsmError("UNAVAILABLE", "endpoint-stopped", `process ${pid} of the endpoint is stopped`);
    },
    [Symbol.dispose]() {
      stopWatch[Symbol.dispose]();
      timer[Symbol.dispose]();
      for (const url of sockets.keys()) drop(url);
    },
  };
}

/** Who registered and who listens must live in one network namespace: that is where the wire will end. */
function refuseOtherNamespace({ owner, listener }: ForeignSocket, url: string): void {
  const inodeOf = (pid: number) =>
    statSync(`/proc/${pid}/ns/net`, { bigint: true, throwIfNoEntry: false })?.ino;
  const [registered, listens] = [inodeOf(owner.pid), inodeOf(listener.pid)];
  if (registered !== undefined && registered === listens) return;
  throw new NsmError(
    "PERMISSION_DENIED",
    "netns-mismatch",
    `${url}: process ${listener.pid} listens there in another network namespace than process ${owner.pid}, which registered it`,
  );
}
