/** Who brought a record: a manager vouches for the owner of what it brings, and could so take over what others have brought (docs/protocol.md, "Registry"). */
import type { NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { NsmError } from "../sdk/errors.ts";
import { sameService } from "../sdk/registry/equal.ts";
import type { RegistryContext } from "../sdk/registry/registry.ts";
import type { Store } from "../sdk/registry/store.ts";

export interface BringersOptions {
  readonly endpoints: Pick<Store<NetworkServiceEndpoint>, "entries">;
  /** True for a manager that is connected now. */
  readonly isPresent: (spiffeId: string) => boolean;
}

type Caller = Pick<RegistryContext, "peer">;

export interface Bringers {
  /** What is stored now was brought by the caller; without a peer by this process itself. */
  note(stored: NetworkService | NetworkServiceEndpoint, caller: Caller): void;
  /** What somebody else brought who is connected. Throws PERMISSION_DENIED `other-manager`. */
  refuseEndpoint(stored: NetworkServiceEndpoint | undefined, caller: Caller): void;
  /**
   * `wanted`: undefined takes it out. What this process brought is nobody's to change; what somebody else brought who is connected and has
   * endpoints of it, is not either. False when nothing would change. Throws PERMISSION_DENIED `other-manager`, `service-of-registry`.
   */
  mayChangeService(
    stored: NetworkService | undefined,
    wanted: NetworkService | undefined,
    caller: Caller,
  ): boolean;
}

/** Who brought what this process itself put in; no SPIFFE id. */
const OURS = "";

/** State goes with the records. */
export function createBringers({ endpoints, isPresent }: BringersOptions): Bringers {
  const bringers = new WeakMap<NetworkService | NetworkServiceEndpoint, string>();
  const hasEndpoint = (bringer: string, service: string) => {
    for (const endpoint of endpoints.entries())
      if (endpoint.networkServiceNames.includes(service) && bringers.get(endpoint) === bringer) return true;
    return false;
  };
  return {
    note: (stored, { peer }) => void bringers.set(stored, peer?.spiffeId ?? OURS),
    refuseEndpoint(stored, { peer }) {
      if (stored === undefined || peer === undefined) return;
      const bringer = bringers.get(stored);
      if (bringer === undefined || peer.spiffeId === bringer || !isPresent(bringer)) return;
      throw new NsmError(
        "PERMISSION_DENIED",
        "other-manager",
        `endpoint ${stored.name} was registered through ${bringer}, which is connected: unregister it there, or wait until it runs out`,
      );
    },
    mayChangeService(stored, wanted, { peer }) {
      if (stored === undefined || peer === undefined) return true;
      const bringer = bringers.get(stored);
      if (bringer === undefined || bringer === peer.spiffeId) return true;
      const { name } = stored;
      const isOurs = bringer === OURS;
      if (!isOurs && !(isPresent(bringer) && hasEndpoint(bringer, name))) return true;
      if (wanted !== undefined && sameService(stored, wanted)) return false;
      if (isOurs)
        throw new NsmError(
          "PERMISSION_DENIED",
          "service-of-registry",
          `network service ${name} is defined at the registry itself (NSM_NETWORK_SERVICES_PATH): change it there`,
        );
      throw new NsmError(
        "PERMISSION_DENIED",
        "other-manager",
        `network service ${name} was registered through ${bringer}, which is connected and has endpoints of it: change it there`,
      );
    },
  };
}
