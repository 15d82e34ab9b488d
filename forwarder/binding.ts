/** Ties a device to the path that claimed it, across restarts (docs/protocol.md, "Ownership"). */
import { createHash } from "node:crypto";
import type { Connection } from "../api/gen/connection_pb.js";

/**
 * A short hash of the ids of all hops before this one. Each of those hops vouches for its own id, so a stranger that copies a
 * later segment arrives with other ids in front of it. Written in the alias of every device; compared when one is adopted.
 */
export function bindingOf(connection: Connection): string {
  const path = connection.path;
  const before = path?.pathSegments.slice(0, path.index).map(({ id }) => id) ?? [];
  return createHash("sha256").update(JSON.stringify(before)).digest("base64url").slice(0, 22);
}
