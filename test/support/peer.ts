/** Peers as a handler sees them, with real certificates; made once per SPIFFE id. */
import type { Peer, PeerProcess } from "../../sdk/grpc/peer.ts";
import { makeAuthority } from "./certificates.ts";

const authority = await makeAuthority("example.org");
const own = await authority.issue("/me");

/** A caller `spiffe://example.org<path>`: on the unix socket as the process `pid`, else over TCP. */
export async function makePeer(path: string, pid?: number): Promise<Peer> {
  const { svid } = await authority.issue(path);
  const [certificate] = svid.chain;
  if (certificate === undefined) throw new Error("an SVID has a leaf");
  const process: PeerProcess | undefined =
    pid === undefined ? undefined : { pid, uid: 0, gid: 0, pidfd: undefined, isAlive: () => true };
  const transport = pid === undefined ? "tcp" : "unix";
  return { session: `conn-${path}`, spiffeId: svid.id, certificate, own, transport, process };
}
