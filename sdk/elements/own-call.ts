/** Closes that this process sends on its own, after the call that led to them. */
import type { CallContext } from "../chain.ts";

/** Nobody waits for it; what does not answer by then ends with its lease. */
const CLOSE_WITHIN_MS = 15_000;

export function ownCall(): CallContext {
  return {
    signal: AbortSignal.timeout(CLOSE_WITHIN_MS),
    deadlineMs: undefined,
    peer: undefined,
    callerToken: undefined,
  };
}
