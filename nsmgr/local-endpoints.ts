/** Endpoints and forwarders that registered through this manager: where they really are, and whether they still live. */
import { clone, create, equals } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { NetworkServiceEndpointSchema } from "../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import type { Clock } from "../sdk/clock.ts";
import type { NextHop } from "../sdk/elements/target.ts";
import type { RegistrationPath } from "../sdk/registry-path.ts";

/** However much the clocks differ, who has just registered is there for a while. */
const SHORTEST_LIFE_MS = 5000;

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
  /** One that is known lives until then (milliseconds since 1970), if that is later than what it was given before. */
  prolong(name: string, untilMs: number): void;
  delete(name: string): void;
  /** Published records of a service that are not expired, in the order of registration. */
  published(service: string): readonly NetworkServiceEndpoint[];
  /** How to reach one of them as an endpoint of `service`; undefined when it is unknown, or offers something else. */
  hopTo(name: string, service: string): NextHop | undefined;
  /** Names of those that are dead or expired now. */
  gone(): Gone[];
  /** Calls back after each registration and each end of an endpoint of `service`, until disposed. A renewed registration is none. */
  onChange(service: string, listener: () => void): Disposable;
}

interface Kept {
  readonly local: LocalEndpoint;
  /** Monotonic: a step of the wall clock, or a registry whose clock differs, must not empty the node. */
  readonly endsAt: number;
}

export function createLocalEndpoints(clock: Clock): LocalEndpoints {
  const byName = new Map<string, Kept>();
  const isExpired = ({ endsAt }: Kept) => endsAt <= clock.monotonic();
  const listeners = new Map<string, Set<() => void>>();
  const keep = (local: LocalEndpoint) => {
    const { name, expirationTime } = local.entry;
    const lifeMs = expirationTime === undefined ? Infinity : timestampMs(expirationTime) - clock.now();
    byName.set(name, { local, endsAt: clock.monotonic() + Math.max(lifeMs, SHORTEST_LIFE_MS) });
  };
  const drop = (name: string): LocalEndpoint | undefined => {
    const local = byName.get(name)?.local;
    local?.dispose();
    byName.delete(name);
    return local;
  };
  const tell = (services: Iterable<string>) => {
    for (const service of services) for (const listener of listeners.get(service) ?? []) listener();
  };
  return {
    get: (name) => byName.get(name)?.local,
    set(local) {
      const before = drop(local.entry.name);
      keep(local);
      if (before === undefined || !isRenewal(before, local))
        tell(new Set([...(before?.entry.networkServiceNames ?? []), ...local.entry.networkServiceNames]));
    },
    prolong(name, untilMs) {
      const kept = byName.get(name);
      if (kept === undefined || kept.endsAt - clock.monotonic() >= untilMs - clock.now()) return;
      kept.local.entry.expirationTime = timestampFromMs(untilMs);
      keep(kept.local);
    },
    delete(name) {
      tell(drop(name)?.entry.networkServiceNames ?? []);
    },
    published: (service) =>
      [...byName.values()]
        .filter((kept) => kept.local.entry.networkServiceNames.includes(service) && !isExpired(kept))
        .map(({ local }) => clone(NetworkServiceEndpointSchema, local.entry)),
    hopTo(name, service) {
      const local = byName.get(name)?.local;
      if (local?.entry.networkServiceNames.includes(service) !== true) return undefined;
      const owner = local.entry.pathIds[0];
      return owner === undefined ? { url: local.url } : { url: local.url, expect: (id) => id === owner };
    },
    gone: () =>
      [...byName.values()].flatMap((kept): Gone[] => {
        const { name } = kept.local.entry;
        if (!kept.local.isAlive()) return [{ name, why: "dead" }];
        return isExpired(kept) ? [{ name, why: "expired" }] : [];
      }),
    onChange(service, listener) {
      const all = listeners.get(service) ?? new Set();
      listeners.set(service, all.add(listener));
      return {
        [Symbol.dispose]() {
          all.delete(listener);
          if (all.size === 0 && listeners.get(service) === all) listeners.delete(service);
        },
      };
    },
  };
}

/** The same process, with the same labels, at the same place. */
function isRenewal(before: LocalEndpoint, now: LocalEndpoint): boolean {
  const lasting = ({ url, entry }: LocalEndpoint) =>
    create(NetworkServiceEndpointSchema, {
      url,
      networkServiceNames: entry.networkServiceNames,
      networkServiceLabels: entry.networkServiceLabels,
    });
  return equals(NetworkServiceEndpointSchema, lasting(before), lasting(now)) && isSameTime(before, now);
}

function isSameTime({ entry: a }: LocalEndpoint, { entry: b }: LocalEndpoint): boolean {
  const [x, y] = [a.initialRegistrationTime, b.initialRegistrationTime];
  return x?.seconds === y?.seconds && x?.nanos === y?.nanos;
}
