/** What a failed Request says to whoever began the connection (docs/protocol.md, "The life of a wire"). Pure. */
import type { Connection } from "../api/gen/connection_pb.js";
import { NsmError } from "./errors.ts";
import { earliestExpiry } from "./path.ts";

/** Our place in the path, or the device made for it, is somebody else's. */
const FOREIGN: ReadonlySet<string> = new Set(["foreign-connection", "foreign-device"]);

/** What a failed Request leaves: nothing changes unless the wire is somebody else's, or the lease has run out. */
export function afterFailure(
  error: unknown,
  connection: Connection | undefined,
  reselect: boolean,
  nowMs: number,
): { connection: Connection | undefined; reselect: boolean } {
  if (connection === undefined) return { connection, reselect };
  // Our place in the path is somebody else's (both ends forgot us): start with a path of our own segment alone.
  if (saysForeign(error)) return { connection: undefined, reselect: false };
  const leaseOver = connection.path !== undefined && (earliestExpiry(connection.path) ?? Infinity) <= nowMs;
  return { connection, reselect: reselect || leaseOver };
}

/** See `FOREIGN`: the next Request has a path of the own segment alone. */
export function saysForeign(error: unknown): boolean {
  return error instanceof NsmError && FOREIGN.has(error.reason);
}

/** The endpoint, the forwarder or their common mechanism is not there any more, or not yet again. */
export function saysGone(error: unknown): boolean {
  if (!(error instanceof NsmError)) return false;
  return (
    error.code === "NOT_FOUND" || error.code === "FAILED_PRECONDITION" || error.reason === "forwarder-gone"
  );
}

/** The endpoint's process is dead: whoever comes in its place is another one. */
export function saysEnded(error: unknown): boolean {
  return error instanceof NsmError && error.reason === "process-ended";
}

/** The endpoint lives, and its service does not lead us to it any more. */
export function saysMismatch(error: unknown): boolean {
  return error instanceof NsmError && error.reason === "endpoint-mismatch";
}

/** There is no such service, or nobody who would serve us. */
export function saysNobody(error: unknown): boolean {
  return error instanceof NsmError && error.code === "NOT_FOUND";
}
