/** Writes the caller's token into the caller's segment and a fresh own one into ours (docs/protocol.md, "Tokens"). */
import { create } from "@bufbuild/protobuf";
import { TimestampSchema, timestampMs } from "@bufbuild/protobuf/wkt";
import type { Connection } from "../../api/gen/connection_pb.js";
import type { CallContext, Element } from "../chain.ts";
import { NsmError } from "../errors.ts";
import type { Peer } from "../grpc/peer.ts";
import { subjectOf } from "../jwt.ts";
import { placeTokens, signAgain } from "../token.ts";
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
  const answer = (connection: Connection, { peer }: CallContext) => {
    const segment = connection.path?.pathSegments[connection.path.index];
    if (segment === undefined || peer === undefined) return;
    const again = signAgain(minter, peer.own.svid, segment.token);
    if (again === undefined) return;
    segment.token = again.token;
    if (segment.expires === undefined || again.expiresMs < timestampMs(segment.expires))
      segment.expires = create(TimestampSchema, again.expires);
  };
  return (next) => ({
    async request(request, ctx) {
      update(connectionOf(request), ctx);
      const response = await next.request(request, ctx);
      answer(response, ctx);
      return response;
    },
    async close(connection, ctx) {
      update(connection, ctx);
      await next.close(connection, ctx);
    },
  });
}
