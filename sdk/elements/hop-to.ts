/** How an endpoint of the registry is reached, and who may answer there. */
import type { NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import { hasDomain } from "../domains/name.ts";
import { checkTcpUrl } from "../endpoint-url.ts";
import type { RefusedAddresses } from "../endpoint-url.ts";
import { NsmError, messageOf } from "../errors.ts";
import type { NextHop } from "./target.ts";

export interface HopToOptions {
  /** Who may answer at a URL of another node: the managers of this mesh. */
  readonly isManager: (spiffeId: string) => boolean;
  /** Who may answer for endpoints of other domains: the proxies of this one. */
  readonly isProxy: (spiffeId: string) => boolean;
  /** Networks that no endpoint's URL may lead to. */
  readonly refusedAddresses: RefusedAddresses;
}

/** An endpoint on this node is the one that registered; one elsewhere is reached by the manager there. */
export function hopTo(endpoint: NetworkServiceEndpoint, options: HopToOptions): NextHop {
  const { url } = endpoint;
  const owner = endpoint.pathIds[0];
  if (!url.startsWith("unix:")) {
    checkUrl(endpoint, options.refusedAddresses);
    const serves = hasDomain(endpoint.name) ? options.isProxy : options.isManager;
    return { url, expect: (id) => serves(id) || id === owner };
  }
  return owner === undefined ? { url } : { url, expect: (id) => id === owner };
}

/** A record with a URL that is not to be dialled is one endpoint less, and no fault of the caller's. */
function checkUrl({ name, url }: NetworkServiceEndpoint, refused: RefusedAddresses): void {
  try {
    checkTcpUrl(url, refused, `endpoint ${name}`);
  } catch (error) {
    const reason = error instanceof NsmError ? error.reason : "bad-endpoint-url";
    throw new NsmError("UNAVAILABLE", reason, messageOf(error), error);
  }
}
