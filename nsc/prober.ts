/** Probes the data paths of all wires of a client, one probe a wire and interval (docs/protocol.md, "Liveness"). */
import type { Connection } from "../api/gen/connection_pb.js";
import type { Clock } from "../sdk/clock.ts";
import type { EchoSocket, EchoSocketOptions } from "../sdk/echo-socket.ts";
import { addressesOf } from "../sdk/ip-context.ts";
import type { Logger } from "../sdk/log.ts";
import { formatAddress } from "../sdk/prefix.ts";
import type { PathNews, WatchPath } from "./data-path.ts";
import { createDetector } from "./detector.ts";
import type { Detector } from "./detector.ts";

/** Between two confirming probes. */
const CONFIRM_EVERY_MS = 4;
/** A tick that is later says that this process, or the whole machine, did not run. */
const STALL_MS = 100;
/** An endpoint that has not answered by then may never do so; it is asked less often. */
const EAGER_MS = 10_000;
const LAZY_EVERY = 20;
/** An endpoint may give a wire many addresses. */
const MOST_PAIRS = 8;

export interface ProberOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly intervalMs: number;
  /** An answer is waited for this long at most. */
  readonly timeoutMs: number;
  readonly open: (options: EchoSocketOptions, onReadable: () => void) => EchoSocket;
}

export interface Prober extends Disposable {
  /**
   * Probes the wire from its next tick on until it is dead, or until disposed. One that `hasAnswered` before is dead without another
   * answer.
   */
  readonly watch: WatchPath;
}

/** One end-to-end pair of addresses of a wire. */
interface Pair {
  readonly source: string;
  readonly target: string;
}

interface Watched extends Disposable {
  tick(nowMs: number): void;
  forgive(): void;
}

/** State: a socket for each pair of addresses of each wire, and one timer for all. */
export function createProber(options: ProberOptions): Prober {
  const { clock, intervalMs } = options;
  const all = new Set<Watched>();
  let timer: Disposable | undefined;
  let dueMs = 0;
  const arm = () => {
    dueMs = clock.monotonic() + intervalMs;
    timer = clock.timer(intervalMs, tick);
  };
  const tick = () => {
    const nowMs = clock.monotonic();
    const stalled = nowMs - dueMs > STALL_MS;
    for (const watched of all) {
      if (stalled) watched.forgive();
      watched.tick(nowMs);
    }
    if (all.size > 0) arm();
    else timer = undefined;
  };
  return {
    watch(connection, { onDead, onAnswer }, hasAnswered) {
      const detector = createDetector(options.timeoutMs, hasAnswered);
      const watched = watch(options, connection, detector, {
        onAnswer,
        onDead() {
          all.delete(watched);
          watched[Symbol.dispose]();
          onDead();
        },
      });
      all.add(watched);
      if (timer === undefined) arm();
      return {
        [Symbol.dispose]() {
          all.delete(watched);
          watched[Symbol.dispose]();
        },
      };
    },
    [Symbol.dispose]() {
      timer?.[Symbol.dispose]();
      for (const watched of all) watched[Symbol.dispose]();
      all.clear();
    },
  };
}

function watch(
  options: ProberOptions,
  connection: Connection,
  detector: Detector,
  { onDead, onAnswer }: PathNews,
): Watched {
  const { clock } = options;
  const sockets: EchoSocket[] = [];
  let unopened = pairsOf(connection);
  /** Those that have answered: they are asked in turn. Until there is one all are, and the others now and then at the beginning. */
  const answering = new Set<EchoSocket>();
  const startedMs = clock.monotonic();
  let ticks = 0;
  let turn = 0;
  let timer: Disposable | undefined;
  let isOver = false;

  const drain = () => {
    const wasSilent = answering.size === 0;
    for (const socket of isOver ? [] : sockets)
      for (const sequence of socket.replies()) {
        answering.add(socket);
        detector.answered(sequence, clock.monotonic());
      }
    if (wasSilent && answering.size > 0) onAnswer();
  };
  /** A new address may not be usable yet: IPv6 looks for duplicates first. */
  const openMore = () => {
    unopened = unopened.filter((pair) => {
      const socket = tryOpen(options, connection, pair, drain);
      if (socket !== undefined) sockets.push(socket);
      return socket === undefined;
    });
  };
  const probe = (isForOthers = false) => {
    const others = sockets.filter((socket) => !answering.has(socket));
    const asked = answering.size === 0 || (isForOthers && others.length > 0) ? others : [...answering];
    asked[turn++ % asked.length]?.send(detector.sent(clock.monotonic()));
  };
  const later = (delayMs: number, run: () => void) => {
    timer?.[Symbol.dispose]();
    const dueMs = clock.monotonic() + delayMs;
    timer = clock.timer(delayMs, () => {
      if (clock.monotonic() - dueMs > STALL_MS) detector.forgive();
      run();
    });
  };
  const judge = () => {
    drain();
    const verdict = detector.judge(clock.monotonic());
    if (verdict.kind === "dead") onDead();
    else if (verdict.kind === "doubted") confirm(verdict.probes);
    else if (verdict.againAtMs !== undefined) later(verdict.againAtMs - clock.monotonic(), judge);
  };
  const confirm = (left: number) => {
    drain();
    if (!detector.isDoubted) return;
    if (left === 0) {
      judge();
      return;
    }
    probe();
    later(CONFIRM_EVERY_MS, () => confirm(left - 1));
  };

  return {
    tick(nowMs) {
      const isLazyTick = ticks++ % LAZY_EVERY === 0;
      if (unopened.length > 0 && isLazyTick) openMore();
      drain();
      // Doubt has its own timer and probes.
      if (sockets.length === 0 || detector.isDoubted) return;
      const isEager = nowMs - startedMs <= EAGER_MS;
      if (!detector.isArmed && !isEager && !isLazyTick) return;
      probe(isEager && isLazyTick);
      judge();
    },
    forgive: () => detector.forgive(),
    [Symbol.dispose]() {
      isOver = true;
      timer?.[Symbol.dispose]();
      for (const socket of sockets) socket[Symbol.dispose]();
    },
  };
}

/** Every own address with every address of the other side that is of its family. */
function pairsOf({ context }: Connection): readonly Pair[] {
  const ip = context?.ipContext;
  if (ip === undefined) return [];
  const targets = addressesOf(ip, "dst");
  return addressesOf(ip, "src")
    .flatMap((source) =>
      targets
        .filter(({ family }) => family === source.family)
        .map((target) => ({ source: formatAddress(source), target: formatAddress(target) })),
    )
    .slice(0, MOST_PAIRS);
}

function tryOpen(
  { open, log }: ProberOptions,
  connection: Connection,
  pair: Pair,
  onReadable: () => void,
): EchoSocket | undefined {
  const device = connection.mechanism?.parameters["name"] ?? "";
  try {
    return open({ ...pair, device }, onReadable);
  } catch (err) {
    log.debug({ connection: connection.id, interface: device, err }, "wire cannot be probed yet");
    return undefined;
  }
}
