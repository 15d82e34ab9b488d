/** What other domains may use of this one (docs/protocol.md, "Exports"). By default nothing. */
import { create } from "@bufbuild/protobuf";
import { NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import type { NetworkService } from "../../api/gen/registry_pb.js";
import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import type { Registry } from "../registry/registry.ts";
import { createWatches } from "../registry/watches.ts";

/** Every domain that is known at all. */
export const EVERY_DOMAIN = "*";

export interface Export {
  readonly service: string;
  /** Or `EVERY_DOMAIN`. */
  readonly domain: string;
  /** The domain may register endpoints of the service. */
  readonly acceptEndpoints: boolean;
}

export interface Exports {
  list(): readonly Export[];
  isExported(service: string, domain: string): boolean;
  accepts(service: string, domain: string): boolean;
  /** True when there is a service that the domain may register endpoints of. */
  acceptsAny(domain: string): boolean;
  onChange(listener: () => void): Disposable;
}

export const NO_EXPORTS: Exports = exportsOf(
  () => [],
  () => ({ [Symbol.dispose]: () => undefined }),
);

/** Of a list that says when it has changed. */
export function exportsOf(
  list: () => readonly Export[],
  onChange: (listener: () => void) => Disposable,
): Exports {
  let indexed: readonly Export[] | undefined;
  let byService = new Map<string, readonly Export[]>();
  const to = (service: string, domain: string): readonly Export[] => {
    const all = list();
    if (all !== indexed) {
      indexed = all;
      byService = Map.groupBy(all, (each) => each.service);
    }
    return byService.get(service)?.filter((each) => isFor(each, domain)) ?? [];
  };
  return {
    list,
    isExported: (service, domain) => to(service, domain).length > 0,
    accepts: (service, domain) => to(service, domain).some(({ acceptEndpoints }) => acceptEndpoints),
    acceptsAny: (domain) => list().some((each) => each.acceptEndpoints && isFor(each, domain)),
    onChange,
  };
}

/** What either says. */
export function eitherOf(a: Exports, b: Exports): Exports {
  return {
    list: () => [...a.list(), ...b.list()],
    isExported: (service, domain) => a.isExported(service, domain) || b.isExported(service, domain),
    accepts: (service, domain) => a.accepts(service, domain) || b.accepts(service, domain),
    acceptsAny: (domain) => a.acceptsAny(domain) || b.acceptsAny(domain),
    onChange(listener) {
      const stack = new DisposableStack();
      stack.use(a.onChange(listener));
      stack.use(b.onChange(listener));
      return stack;
    },
  };
}

/** What a registry's services say of themselves, kept current; while the registry is away the last of it holds. */
export function followExportedServices(
  services: Registry<NetworkService>,
  clock: Clock,
  log: Logger,
): Exports & Disposable {
  const stack = new DisposableStack();
  const watches = stack.use(createWatches(services, saysTheSame, clock, log));
  const listeners = new Set<() => void>();
  let current: readonly Export[] = [];
  const read = () => {
    current = (watches.known("") ?? []).flatMap(exportsOfService);
    for (const listener of listeners) listener();
  };
  stack.use(watches.follow("", create(NetworkServiceSchema), read));
  const exports = exportsOf(
    () => current,
    (listener) => {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
  );
  return { ...exports, [Symbol.dispose]: () => stack.dispose() };
}

function exportsOfService({ name, exportTo, acceptEndpointsFrom }: NetworkService): Export[] {
  return [...new Set([...exportTo, ...acceptEndpointsFrom])].map((domain) => ({
    service: name,
    domain,
    acceptEndpoints: acceptEndpointsFrom.includes(domain),
  }));
}

function saysTheSame(a: NetworkService, b: NetworkService): boolean {
  const text = (service: NetworkService) => JSON.stringify(exportsOfService(service));
  return text(a) === text(b);
}

function isFor(each: Export, domain: string): boolean {
  return each.domain === domain || each.domain === EVERY_DOMAIN;
}
