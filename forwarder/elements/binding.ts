/** Ties a device to the path that claimed it, across restarts (docs/protocol.md, "Ownership"). */
import { createHash } from "node:crypto";
import type { Connection } from "../../api/gen/connection_pb.js";
import { claimOf } from "../../sdk/claim.ts";

/**
 * A short hash of the claim of all hops before this one, whose tokens must be placed already. Each of those hops vouches for its
 * own id, so a stranger that copies a later segment arrives with other ids, or another identity, in front of it. Written in the
 * alias of every device; compared when one is adopted.
 */
export function bindingOf(connection: Connection): string {
  return createHash("sha256").update(claimOf(connection)).digest("base64url").slice(0, 22);
}
