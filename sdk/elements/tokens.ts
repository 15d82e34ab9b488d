/** Writes the caller's token into the caller's segment and a fresh own one into ours (docs/protocol.md, "Tokens"). */
import type { Connection } from "../../api/gen/connection_pb.js";
import type { CallContext, Element } from "../chain.ts";
import { NsmError } from "../errors.ts";
import type { Peer } from "../grpc/peer.ts";
import { subjectOf } from "../jwt.ts";
import { placeTokens } from "../token.ts";
import type { PathToken, TokenMinter } from "../token.ts";
import { connectionOf } from "./update-path.ts";

/**
 * A caller speaks for itself alone: the token beside its call names it. (The policies check who signed it, not whom it names.)
 * Throws PERMISSION_DENIED `token-subject`.
 */
export function refuseForeignToken(peer: Peer, callerToken: PathToken | undefined): void {
  if (callerToken === undefined) return;
  const subject = subjectOf(callerToken.token);
  if (subject === undefined || subject === peer.spiffeId) return;
  throw new NsmError(
    "PERMISSION_DENIED",
    "token-subject",
    `${peer.spiffeId} sent a token of ${subject}: sign a token with the own id as subject`,
  );
}

/** Calls that this process makes to itself (no peer) leave the tokens as they are. */
export function updateToken(minter: TokenMinter): Element {
  const update = (connection: Connection, { peer, callerToken }: CallContext) => {
    if (connection.path === undefined || peer === undefined) return;
    refuseForeignToken(peer, callerToken);
    const own = minter.mint(peer.own.svid, peer.spiffeId, peer.certificate.validToDate.getTime());
    placeTokens(connection.path, callerToken, own);
  };
  return (next) => ({
    async request(request, ctx) {
      update(connectionOf(request), ctx);
      return await next.request(request, ctx);
    },
    async close(connection, ctx) {
      update(connection, ctx);
      await next.close(connection, ctx);
    },
  });
}
