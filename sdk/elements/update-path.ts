/** Gives this hop its own path segment on the way in, and the caller its position back on the way out (docs/protocol.md, "Path"). */
import type { Connection } from "../../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import type { Element } from "../chain.ts";
import { NsmError } from "../errors.ts";
import { enterHop, leaveHop } from "../path.ts";

/** The connection of a request; INVALID_ARGUMENT `connection-missing` without one. */
export function connectionOf(request: NetworkServiceRequest): Connection {
  if (request.connection === undefined)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "connection-missing",
      "the request has no connection: send one with the network service and your own path segment",
    );
  return request.connection;
}

/** Id of the next hop's segment, where the connection stands at ours. */
export function idBehind({ path }: Connection): string | undefined {
  return path?.pathSegments[path.index + 1]?.id;
}

/** Name of the next hop's segment, where the connection stands at ours. */
export function nameBehind({ path }: Connection): string | undefined {
  return path?.pathSegments[path.index + 1]?.name;
}

/** True when what stood behind us has another id now; false when nothing did. */
export function leadsElsewhere(before: Connection, after: Connection): boolean {
  const old = idBehind(before);
  return old !== undefined && old !== idBehind(after);
}

/**
 * `name`: this process's segment name, unique along a path. Messages are changed in place: each hop owns the copy it decoded.
 * `newId` makes the ids of new segments.
 */
export function updatePath(name: string, newId: () => string): Element {
  return (next) => ({
    async request(request, ctx) {
      const caller = enterHop(connectionOf(request), name, newId);
      const response = await next.request(request, ctx);
      leaveHop(response, caller);
      return response;
    },
    async close(connection, ctx) {
      enterHop(connection, name, newId);
      await next.close(connection, ctx);
    },
  });
}
