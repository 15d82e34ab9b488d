/**
 * The path of a connection: which segment a hop calls its own, and what its caller gets back (docs/protocol.md, "Path"). Pure.
 *
 *     i = path.index, S = path_segments, N = own name
 *     no S                        own segment 0 with the connection's id          caller = own position
 *     S[i].name = N               that segment is ours already                    caller = own position
 *     S[i].id = connection.id     own segment i+1: kept if it bears our name,     caller = i
 *                                 else renamed with a new id, else appended
 *     otherwise                   the path lies
 */
import { create } from "@bufbuild/protobuf";
import { PathSchema, PathSegmentSchema } from "../api/gen/connection_pb.js";
import type { Connection, Path, PathSegment } from "../api/gen/connection_pb.js";
import { NsmError } from "./errors.ts";
import { instantMs } from "./rfc3339.ts";

/** The position that the answer must have when it leaves this hop. */
export interface CallerPosition {
  readonly callerIndex: number;
  readonly callerId: string;
}

/**
 * Moves `connection` (the caller's to change) to this hop's own segment: `path.index` and `id` are ours afterwards. The server
 * and the client part of one process use the same `name` and so share one segment. `newId` makes ids of new segments.
 *
 * Throws INVALID_ARGUMENT `path-index` (index beyond the path) or `path-id` (id is not that of the current segment) and then has
 * changed nothing.
 */
export function enterHop(connection: Connection, name: string, newId: () => string): CallerPosition {
  const path = connection.path ?? create(PathSchema);
  if (path.pathSegments.length === 0) return startPath(connection, path, name, newId);

  const current = path.pathSegments[path.index];
  if (current?.name === name) {
    connection.id = current.id;
    return { callerIndex: path.index, callerId: current.id };
  }
  const caller = { callerIndex: path.index, callerId: checkedCaller(connection, path, current).id };
  const own = ownSegment(path, path.index + 1, name, newId);
  path.index++;
  connection.id = own.id;
  return caller;
}

/**
 * Gives `response` the caller's position back. Throws INTERNAL `path-lost` when the next hop answered with a path that does not
 * reach it.
 */
export function leaveHop(response: Connection, caller: CallerPosition): void {
  const { path } = response;
  if (path === undefined || caller.callerIndex >= path.pathSegments.length) {
    const length = path?.pathSegments.length ?? 0;
    throw new NsmError(
      "INTERNAL",
      "path-lost",
      `the next hop answered with a path of ${length} segments, too short for the caller's index ${caller.callerIndex}`,
    );
  }
  path.index = caller.callerIndex;
  response.id = caller.callerId;
}

/** Cuts what follows segment `index`: the last hop of a chain hides what lies behind it. No effect on shorter paths. */
export function trimPath(connection: Connection, index: number): void {
  const segments = connection.path?.pathSegments;
  if (segments !== undefined && index + 1 < segments.length) segments.length = index + 1;
}

/** Milliseconds since 1970 of the segment that runs out first; undefined when none has an expiry. */
export function earliestExpiry(path: Path): number | undefined {
  const expiries = path.pathSegments.flatMap(({ expires }) =>
    expires === undefined ? [] : [instantMs(expires)],
  );
  return expiries.length === 0 ? undefined : expiries.reduce((a, b) => Math.min(a, b));
}

function startPath(connection: Connection, path: Path, name: string, newId: () => string): CallerPosition {
  if (connection.id === "") connection.id = newId();
  path.index = 0;
  path.pathSegments.push(create(PathSegmentSchema, { name, id: connection.id }));
  connection.path = path;
  return { callerIndex: 0, callerId: connection.id };
}

function checkedCaller(connection: Connection, path: Path, current: PathSegment | undefined): PathSegment {
  if (current === undefined)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "path-index",
      `path index ${path.index} is beyond its ${path.pathSegments.length} segments: send the index of your own segment`,
    );
  if (current.id !== connection.id)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "path-id",
      `connection id ${JSON.stringify(connection.id)} is not that of path segment ${path.index} (${JSON.stringify(current.id)})`,
    );
  return current;
}

function ownSegment(path: Path, index: number, name: string, newId: () => string): PathSegment {
  const next = path.pathSegments[index];
  if (next === undefined) {
    const appended = create(PathSegmentSchema, { name, id: newId() });
    path.pathSegments.push(appended);
    return appended;
  }
  if (next.name !== name) {
    next.name = name;
    next.id = newId();
  }
  return next;
}
