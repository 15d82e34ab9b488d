/** Between domains nothing goes unencrypted (docs/protocol.md, "Domains"): whoever owns the network between them reads along. */
import type { Connection, Mechanism } from "../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";
import type { CallContext, Element } from "../sdk/chain.ts";
import { splitDomain } from "../sdk/domains/name.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import { NsmError } from "../sdk/errors.ts";
import type { Logger } from "../sdk/log.ts";
import { isEncrypted } from "../sdk/mechanisms/tunnel.ts";
import { parseSpiffeId } from "../sdk/spiffe/id.ts";
import type { SideOptions, WithSide } from "./side.ts";

/** For the Close of what was answered and is not wanted. */
const CLOSE_MS = 5000;

export interface EncryptedOnlyOptions {
  readonly side: Pick<SideOptions, "isForwarder" | "remote" | "peers">;
  /** Domains with which wires may be unencrypted, by their names or trust domains; `*` for all. */
  readonly unencryptedDomains: readonly string[];
  readonly log: Logger;
}

/**
 * Takes the mechanisms off a Request that do not encrypt, both on the way out and on the way in, and refuses an answer that has one: what
 * stands behind is closed then. Throws FAILED_PRECONDITION `unencrypted`.
 */
export function encryptedOnly(options: EncryptedOnlyOptions): Element<WithSide, WithSide> {
  return (next) => ({
    async request(request, ctx) {
      const domains = otherDomains(connectionOf(request), ctx, options);
      if (domains === undefined || options.unencryptedDomains.includes("*"))
        return next.request(request, ctx);
      if (domains.some((domain) => options.unencryptedDomains.includes(domain)))
        return await next.request(request, ctx);
      const asked = connectionOf(request).networkService;
      keepEncrypted(request, domains);
      const response = await next.request(request, ctx);
      const { mechanism, id } = response;
      if (mechanism === undefined || isEncrypted(mechanism)) return response;
      const signal = AbortSignal.timeout(CLOSE_MS);
      await next.close(response, { ...ctx, signal }).catch((err: unknown) => {
        options.log.info({ connection: id, err }, "closing a wire that is not encrypted failed");
      });
      throw unencrypted(`the answer for ${asked} has ${mechanism.type}`, domains);
    },
    close: (connection, ctx) => next.close(connection, ctx),
  });
}

/** What the domain at the other end is called; undefined when the Request stays in this one. */
function otherDomains(
  { networkServiceEndpointName: name }: Connection,
  { peer, way }: CallContext & WithSide,
  { side }: EncryptedOnlyOptions,
): readonly string[] | undefined {
  const asking = peer && side.peers.domainOf(peer.spiffeId);
  if (peer !== undefined && (asking !== undefined || !side.isForwarder(peer.spiffeId))) {
    const { trustDomain } = parseSpiffeId(peer.spiffeId);
    return asking === undefined ? [trustDomain] : [asking, trustDomain];
  }
  const staysHere = way === undefined || side.remote.registered(name) !== undefined;
  return staysHere ? undefined : [splitDomain(name).domain];
}

function keepEncrypted(request: NetworkServiceRequest, domains: readonly string[]): void {
  const { mechanism, payload, networkService } = connectionOf(request);
  const offered = mechanism === undefined ? request.mechanismPreferences : [mechanism];
  request.mechanismPreferences = request.mechanismPreferences.filter(isEncrypted);
  const isLeft = mechanism === undefined ? request.mechanismPreferences.length > 0 : isEncrypted(mechanism);
  if (isLeft || offered.length === 0) return;
  throw unencrypted(
    `${networkService}${payload && ` (payload ${payload})`} was asked with ${typesOf(offered)}`,
    domains,
  );
}

function typesOf(mechanisms: readonly Mechanism[]): string {
  return mechanisms.map(({ type }) => type).join(", ");
}

function unencrypted(what: string, domains: readonly string[]): NsmError {
  const [domain = ""] = domains;
  return new NsmError(
    "FAILED_PRECONDITION",
    "unencrypted",
    `${what}, and between this domain and ${domain} wires must be encrypted: let the service have the payload IP, which goes by WireGuard (ETHERNET goes by VXLAN), or name ${domain} in NSM_ALLOW_UNENCRYPTED_DOMAINS of this proxy, and this domain in the other proxy's, if you trust the network between them`,
  );
}
