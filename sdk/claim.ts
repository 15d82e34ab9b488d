/** Who may use a connection id: the hops before it, each with the id that it vouches for and its SPIFFE id (docs/protocol.md, "Ownership"). */
import type { Connection } from "../api/gen/connection_pb.js";
import { subjectOf } from "./jwt.ts";

/**
 * A text that is equal for the same hops alone. `callerId` is the verified id of the hop just before us; without it that hop's
 * token, already checked, names it. Earlier hops are named by tokens that the hops between have checked, each its neighbour's.
 */
export function claimOf({ path }: Connection, callerId?: string): string {
  const before = path?.pathSegments.slice(0, path.index) ?? [];
  const last = before.length - 1;
  return JSON.stringify(
    before.map(({ id, token }, i) => [
      id,
      i === last && callerId !== undefined ? callerId : (subjectOf(token) ?? ""),
    ]),
  );
}
