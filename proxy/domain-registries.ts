/** The registries of all other domains as one (docs/protocol.md, "Domains"): the role of a registry proxy. */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { NetworkServiceSchema } from "../api/gen/registry_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { abortWith } from "../sdk/abort-with.ts";
import type { Clock } from "../sdk/clock.ts";
import { findAll } from "../sdk/registry/registry.ts";
import type { Found, Registries, Registry } from "../sdk/registry/registry.ts";
import { FOREIGN_LEASE_MS } from "../sdk/domains/lease.ts";
import type { DomainResolver } from "../sdk/domains/resolver.ts";
import { endpointKind, serviceKind } from "../sdk/domains/records.ts";
import type { DomainKind } from "../sdk/domains/records.ts";
import { NsmError, messageOf } from "../sdk/errors.ts";
import type { Logger } from "../sdk/log.ts";
import { LruMap } from "../sdk/lru.ts";
import { createAnswerGuard, endpointRules, serviceRules } from "./foreign-answers.ts";
import type { AnswerGuard, AnswerRules } from "./foreign-answers.ts";

/** Domains whose calls are kept ready; the sessions themselves are the pool's. */
const MOST_DOMAINS = 1024;
/** The name under which the services of all domains are asked for. */
const ALL_DOMAINS = "@*";
/** For a list, from looking up the domain to the end; and for a watch until the domain is found. */
const PATIENCE_MS = 1900;

export interface DomainRegistriesOptions {
  readonly resolver: DomainResolver;
  /** The registries behind a URL, which answer for that domain. */
  readonly open: (url: string, domain: string) => Registries;
  /** Domains that are known by name, for who asks for the services of all (`@*`). Default none. */
  readonly domains?: () => Iterable<string>;
  readonly clock: Clock;
  readonly log: Logger;
}

export function createDomainRegistries(options: DomainRegistriesOptions): Registries {
  const { resolver, open, clock } = options;
  /** By URL and domain: several may share an address, and each speaks for itself. */
  const opened = new LruMap<string, Registries>(MOST_DOMAINS);
  const guard = createAnswerGuard(options);
  const at = async (domain: string, signal: AbortSignal): Promise<Registries> => {
    const url = await resolver.registryOf(domain, signal);
    const key = `${url} ${domain}`;
    const known = opened.get(key) ?? open(url, domain);
    opened.set(key, known);
    return known;
  };
  const services = inDomain(serviceKind, serviceRules, guard, clock, async (domain, signal) => ({
    registry: (await at(domain, signal)).services,
  }));
  return {
    services: {
      ...services,
      find: (query, ctx) =>
        query.entry.name === ALL_DOMAINS
          ? servicesOfAll(services, [...(options.domains?.() ?? [])], query.watch, ctx.signal)
          : services.find(query, ctx),
    },
    endpoints: inDomain(endpointKind, endpointRules, guard, clock, async (domain, signal) => {
      const [{ endpoints }, proxy] = await Promise.all([
        at(domain, signal),
        resolver.proxyOf(domain, signal),
      ]);
      return { registry: endpoints, seen: (entry) => heardAt(clock, ledTo(entry, proxy)) };
    }),
  };
}

/**
 * The services of all domains, as far as they answer in time: one that does not is a record `@domain`, with the reason as payload.
 * There is no watch on them: one is open, and says nothing.
 */
async function* servicesOfAll(
  services: Registry<NetworkService>,
  domains: readonly string[],
  watch: boolean,
  signal: AbortSignal,
): AsyncGenerator<Found<NetworkService>> {
  if (watch) {
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    return;
  }
  const lists = domains.map(async (domain) => {
    const entry = create(NetworkServiceSchema, { name: `@${domain}` });
    try {
      return await findAll(services, entry, signal);
    } catch (error) {
      return [create(NetworkServiceSchema, { ...entry, payload: messageOf(error) })];
    }
  });
  for (const list of lists) for (const entry of await list) yield { entry, deleted: false };
}

/**
 * Who answers for an endpoint of another domain is the proxy there; a domain without one publishes what can be dialled. A linked one
 * leaves out where its own endpoints are, and says it of those that yet others have registered there.
 */
function ledTo(entry: NetworkServiceEndpoint, proxy: string | undefined): NetworkServiceEndpoint {
  const isLink = proxy?.startsWith("link:") === true;
  if (proxy !== undefined && (!isLink || entry.url === "")) entry.url = proxy;
  return entry;
}

/** A lease is told by the clock there, which may be another one: it lasts for a while from now on. */
function heardAt(clock: Clock, entry: NetworkServiceEndpoint): NetworkServiceEndpoint {
  if (entry.expirationTime !== undefined)
    entry.expirationTime = timestampFromMs(clock.now() + FOREIGN_LEASE_MS);
  return entry;
}

interface Asked<T> {
  readonly registry: Registry<T>;
  /** What is found there, as it is seen here. */
  readonly seen?: (entry: T) => T;
}

function inDomain<T extends { readonly name: string }>(
  kind: DomainKind<T>,
  rules: AnswerRules<T>,
  guard: AnswerGuard,
  clock: Clock,
  ask: (domain: string, signal: AbortSignal) => Promise<Asked<T>>,
): Registry<T> {
  return {
    async register(entry, ctx) {
      const domain = domainOf(kind, entry);
      const { registry } = await ask(domain, ctx.signal);
      const stored = await registry.register(kind.strip(entry), ctx);
      return kind.join(guard.taken(domain, rules, stored), domain);
    },
    async *find({ entry, watch }, { signal }) {
      const domain = domainOf(kind, entry);
      const query = { entry: kind.strip(entry), watch };
      using patience = patienceWith(domain, clock, signal);
      try {
        const { registry, seen = (each: T) => each } = await ask(domain, patience.signal);
        if (watch) patience.wait();
        const open = () => registry.find(query, { signal: patience.signal });
        for await (const found of guard.passed(domain, rules, query, open))
          yield { ...found, entry: seen(kind.join(found.entry, domain)) };
      } catch (error) {
        throw patience.isOver() ? patience.signal.reason : error;
      }
    },
    async unregister(entry, ctx) {
      const { registry } = await ask(domainOf(kind, entry), ctx.signal);
      await registry.unregister(kind.strip(entry), ctx);
    },
  };
}

/** A signal that also aborts, with UNAVAILABLE `domain-silent`, when the time is over; `wait` ends the count. */
function patienceWith(domain: string, clock: Clock, signal: AbortSignal) {
  const over = abortWith(signal);
  let isOver = false;
  const timer = clock.timer(PATIENCE_MS, () => {
    isOver = !over.signal.aborted;
    const text = `domain ${JSON.stringify(domain)} did not answer within ${PATIENCE_MS} ms: is it there, and is there a way to it?`;
    over.abort(new NsmError("UNAVAILABLE", "domain-silent", text));
  });
  return {
    signal: over.signal,
    isOver: () => isOver && !signal.aborted,
    wait: () => timer[Symbol.dispose](),
    [Symbol.dispose]() {
      timer[Symbol.dispose]();
      over[Symbol.dispose]();
    },
  };
}

function domainOf<T extends { readonly name: string }>(kind: DomainKind<T>, entry: T): string {
  const domain = kind.domainOf(entry);
  if (domain !== undefined && domain !== "") return domain;
  throw new NsmError(
    "INVALID_ARGUMENT",
    "no-domain",
    `${JSON.stringify(entry.name)} names no domain: a registry proxy is asked for service@domain`,
  );
}
