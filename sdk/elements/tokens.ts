/** Writes the caller's token into the caller's segment and a fresh own one into ours (docs/protocol.md, "Tokens"). */
import type { Connection } from "../../api/gen/connection_pb.js";
import type { CallContext, Element } from "../chain.ts";
import { placeTokens } from "../token.ts";
import type { TokenMinter } from "../token.ts";
import { connectionOf } from "./update-path.ts";

/** Calls that this process makes to itself (no peer) leave the tokens as they are. */
export function updateToken(minter: TokenMinter): Element {
  const update = (connection: Connection, { peer, callerToken }: CallContext) => {
    if (connection.path === undefined || peer === undefined) return;
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
