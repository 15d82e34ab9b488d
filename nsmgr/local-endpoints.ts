/** Endpoints and forwarders that registered through this manager: where they really are, and whether they still live. */
import { clone } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { NetworkServiceEndpointSchema } from "../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import type { Clock } from "../sdk/clock.ts";
import type { NextHop } from "../sdk/elements/target.ts";
import type { RegistrationPath } from "../sdk/registry-path.ts";

/** One registration. */
export interface LocalEndpoint {
  /** As published, with the manager's URL. */
  readonly entry: NetworkServiceEndpoint;
  /** Where this node reaches it. */
  readonly url: string;
  /** The registration path up to us, to speak for it later. */
  readonly path: RegistrationPath;
  /** False once the process that registered is gone; a registration over TCP counts as alive until it expires. */
  readonly isAlive: () => boolean;
  /** Ends what `isAlive` needs. */
  readonly dispose: () => void;
}

export interface Gone {
  readonly name: string;
  readonly why: "dead" | "expired";
}

export interface LocalEndpoints {
  get(name: string): LocalEndpoint | undefined;
  set(local: LocalEndpoint): void;
  delete(name: string): void;
  /** Published records of a service that are not expired, in the order of registration. */
  published(service: string): readonly NetworkServiceEndpoint[];
  /** How to reach one of them; undefined when it is unknown. */
  hopTo(name: string): NextHop | undefined;
  /** Names of those that are dead or expired now. */
  gone(): Gone[];
}

export function createLocalEndpoints(clock: Clock): LocalEndpoints {
  const byName = new Map<string, LocalEndpoint>();
  const isExpired = ({ entry }: LocalEndpoint) =>
    entry.expirationTime !== undefined && timestampMs(entry.expirationTime) <= clock.now();
  return {
    get: (name) => byName.get(name),
    set(local) {
      byName.get(local.entry.name)?.dispose();
      byName.set(local.entry.name, local);
    },
    delete(name) {
      byName.get(name)?.dispose();
      byName.delete(name);
    },
    published: (service) =>
      [...byName.values()]
        .filter((local) => local.entry.networkServiceNames.includes(service) && !isExpired(local))
        .map(({ entry }) => clone(NetworkServiceEndpointSchema, entry)),
    hopTo(name) {
      const local = byName.get(name);
      if (local === undefined) return undefined;
      const owner = local.entry.pathIds[0];
      return owner === undefined ? { url: local.url } : { url: local.url, expect: (id) => id === owner };
    },
    gone: () =>
      [...byName.values()].flatMap((local): Gone[] => {
        if (!local.isAlive()) return [{ name: local.entry.name, why: "dead" }];
        return isExpired(local) ? [{ name: local.entry.name, why: "expired" }] : [];
      }),
  };
}
