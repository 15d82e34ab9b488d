/** Requests whose caller left before the answer (docs/protocol.md, "One operation at a time"). */
import type { Connection } from "../../api/gen/connection_pb.js";
import type { CallContext } from "../chain.ts";
import { systemClock } from "../clock.ts";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import { NsmError } from "../errors.ts";
import { connectionOf, idBehind } from "./update-path.ts";

/** A Request takes some tens of milliseconds; whoever takes longer is told that the caller has left, and undoes it himself. */
const ANSWER_WITHIN_MS = 1000;
/** For callers that set no deadline. */
const DEADLINE_MS = 15_000;

/** How the next hop is asked. It gives up at the deadline by itself, and is heard for longer. */
export interface Hearing {
  readonly deadlineMs: number;
  /** Aborted when nobody hears any more. */
  readonly signal: AbortSignal;
  /** Aborted when the answer is not wanted any more: then nothing is sent that has not been. */
  readonly wanted: AbortSignal;
}

export interface Unwanted {
  /** Asked when the caller leaves: false ends the call at once, for hops that make nothing new. */
  readonly hears: () => boolean;
  readonly undo: (answer: Connection) => void;
}

/**
 * Rejects as soon as the caller leaves or its time is over, but hears the answer to the end: a call that is given up at the moment
 * in which the next hop succeeds would leave it with a connection whose id nobody knows, and so nobody could close. Such an answer
 * goes to `undo`, and to nobody else.
 */
export function askOnce(
  ask: (hearing: Hearing) => Promise<Connection>,
  { hears, undo }: Unwanted,
  ctx: Pick<CallContext, "signal" | "deadlineMs">,
): Promise<Connection> {
  const { signal, deadlineMs = systemClock.now() + DEADLINE_MS } = ctx;
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const unwanted = new AbortController();
    const patience = new AbortController();
    const leave = (why: unknown) => {
      stopWaiting();
      unwanted.abort(why);
      timer = systemClock.timer(ANSWER_WITHIN_MS, () => patience.abort(why));
      if (!hears()) patience.abort(why);
      reject(why instanceof Error ? why : new Error("the caller left"));
    };
    const onLeft = () => leave(signal.reason);
    const stopWaiting = () => {
      signal.removeEventListener("abort", onLeft);
      timer[Symbol.dispose]();
    };
    const tooLate = "the next hop did not answer in time";
    let timer = systemClock.timer(deadlineMs - systemClock.now(), () =>
      leave(new NsmError("DEADLINE_EXCEEDED", "deadline-exceeded", tooLate)),
    );
    signal.addEventListener("abort", onLeft, { once: true });
    ask({ deadlineMs, signal: patience.signal, wanted: unwanted.signal }).then(
      (answer) => {
        stopWaiting();
        if (unwanted.signal.aborted) undo(answer);
        else resolve(answer);
      },
      (error: unknown) => {
        stopWaiting();
        reject(error instanceof Error ? error : new Error(String(error)));
      },
    );
  });
}

/** The Request of whoever begins a path: what a first one made that is given up is closed. */
export function requestOnce(
  request: NetworkServiceRequest,
  ask: (hearing: Hearing) => Promise<Connection>,
  close: (answer: Connection) => Promise<void>,
  ctx: Pick<CallContext, "signal" | "deadlineMs">,
): Promise<Connection> {
  const known = idBehind(connectionOf(request));
  const undo = (answer: Connection) => {
    // What cannot be closed ends with its lease, or with this process.
    if (idBehind(answer) !== known) void close(answer).catch(() => undefined);
  };
  return askOnce(ask, { hears: () => known === undefined, undo }, ctx);
}
