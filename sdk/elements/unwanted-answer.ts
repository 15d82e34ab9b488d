/** Requests whose caller left before the answer (docs/protocol.md, "One operation at a time"). */
import type { Connection } from "../../api/gen/connection_pb.js";
import type { CallContext } from "../chain.ts";
import { ownCall } from "./own-call.ts";

/** A first Request takes some tens of milliseconds; whoever takes longer is told that the caller has left, and undoes it himself. */
const ANSWER_WITHIN_MS = 1000;
/**
 * Rejects as soon as the caller leaves, but hears the answer to the end: a call that is given up at the moment in which the next
 * hop succeeds would leave it with a connection whose id nobody knows, and so nobody could close. `undo` is handed such an answer.
 */
export async function askOnce(
  ask: (signal: AbortSignal) => Promise<Connection>,
  undo: (answer: Connection, ctx: CallContext) => Promise<void>,
  { signal }: Pick<CallContext, "signal">,
): Promise<Connection> {
  signal.throwIfAborted();
  const patience = new AbortController();
  const left = Promise.withResolvers<never>();
  const onLeft = () => {
    left.reject(signal.reason);
    AbortSignal.timeout(ANSWER_WITHIN_MS).addEventListener("abort", () => patience.abort(signal.reason));
    // It failed, or could not be closed: then there is nothing to close, or it ends with its lease.
    answer.then((unwanted) => undo(unwanted, ownCall())).catch(() => undefined);
  };
  signal.addEventListener("abort", onLeft, { once: true });
  const answer = ask(patience.signal);
  try {
    return await Promise.race([answer, left.promise]);
  } finally {
    signal.removeEventListener("abort", onLeft);
  }
}
