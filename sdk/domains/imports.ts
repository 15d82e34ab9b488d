/**
 * Endpoints of services that have some in other domains, too: they are put into this domain's registry, under the service's name here
 * (docs/protocol.md, "Services of several domains").
 *
 *   not there --told--> there --silent for a second--> there, marked away --told again--> there
 *                         |                                |
 *                         +----- deleted there ------------+--- lease ends ---> not there
 */
import { clone, create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  NetworkServiceEndpointSchema,
  NetworkServiceLabelsSchema,
  NetworkServiceSchema,
} from "../../api/gen/registry_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import type { Clock } from "../clock.ts";
import { codeOf } from "../errors.ts";
import type { Logger } from "../log.ts";
import { labelsFor } from "../match.ts";
import { AWAY_LABEL, DOMAIN_LABEL } from "../prefer.ts";
import type { Registries, RegistryContext } from "../registry/registry.ts";
import { fewAtATime } from "../one-at-a-time.ts";
import { keepWatch } from "../registry/watch.ts";
import { EMPTY_PATH } from "../registry-path.ts";
import { FOREIGN_LEASE_MS } from "./lease.ts";
import { joinDomain, splitDomain } from "./name.ts";

/** A registry there that is started again within this is no domain that is away. */
const AWAY_AFTER_MS = 1000;
/** Of one domain; what is beyond is not taken. */
const MOST_ENDPOINTS = 10_000;
/** Services, each counted for each of its domains: a watch each, of which a session to the proxy bears a thousand. */
const MOST_WATCHES = 800;
/** So long at once are endpoints written: those of a domain that goes away are thousands, and others wait to be heard. */
const SLICE_MS = 1;
/** Lists that a domain is asked for at once: after a restart there are as many to ask for as watches, and none may wait for long. */
const MOST_LISTS = 8;

export interface ImportsOptions {
  /** This domain's own: `services` say what is taken from where, into `endpoints` it is put. */
  readonly registries: Registries;
  /** Asked for `service@domain`; without it nothing can be taken. */
  readonly elsewhere: Pick<Registries, "endpoints"> | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Follows the services, and for each of their `import_from` the endpoints there, until disposed. */
export function keepImports({ registries, elsewhere, clock, log }: ImportsOptions): AsyncDisposable {
  const stop = new AbortController();
  const domains = new Map<string, ImportedDomain>();
  const wanted = new Map<string, readonly string[]>();

  const take = (service: string, from: readonly string[]) => {
    if (elsewhere === undefined) {
      if (from.length > 0)
        log.warn(
          { service, domains: from },
          "endpoints of other domains cannot be taken: set NSM_PROXY_REGISTRY_URL",
        );
      return;
    }
    const before = wanted.get(service) ?? [];
    wanted.delete(service);
    const others = [...wanted.values()].reduce((sum, { length }) => sum + length, 0);
    const taken = from.slice(0, MOST_WATCHES - others);
    if (taken.length < from.length)
      log.warn(
        { service, domains: from.slice(taken.length) },
        `endpoints of other domains are not taken: there are ${MOST_WATCHES} services with domains already`,
      );
    for (const domain of before) if (!taken.includes(domain)) domains.get(domain)?.leave(service);
    for (const name of taken) {
      const domain = domains.get(name) ?? importDomain({ name, registries, elsewhere, clock, log });
      domains.set(name, domain);
      domain.take(service);
    }
    if (taken.length > 0) wanted.set(service, taken);
  };
  const run = async () => {
    const watched = { entries: new Map<string, NetworkService>(), isTold: false };
    await keepWatch(
      { registry: registries.services, query: create(NetworkServiceSchema), signal: stop.signal, log },
      watched,
      {
        onChange(before, now) {
          const name = now?.name ?? before?.name;
          if (name !== undefined) take(name, [...new Set(now?.importFrom)]);
        },
      },
    );
  };
  const running = run();
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
      await Promise.all([...domains.values()].map((domain) => domain[Symbol.asyncDispose]()));
    },
  };
}

interface DomainOptions extends ImportsOptions {
  readonly name: string;
  readonly elsewhere: Pick<Registries, "endpoints">;
}

interface ImportedDomain extends AsyncDisposable {
  take(service: string): void;
  leave(service: string): void;
}

/** What is known of an endpoint there: its record as each of the services taken from there has it. */
interface Imported {
  readonly byService: Map<string, NetworkServiceEndpoint>;
  /** Monotonic. */
  heardAtMs: number;
}

function importDomain({ name: domain, registries, elsewhere, clock, log }: DomainOptions): ImportedDomain {
  const watches = new Map<string, { readonly stop: AbortController; readonly ended: Promise<void> }>();
  const known = new Map<string, Imported>();
  const changed = new Set<string>();
  const current = new Set<string>();
  let isAway = false;
  let silence: Disposable | undefined;
  let isFloodTold = false;
  const stop = new AbortController();
  const listing = fewAtATime(MOST_LISTS);
  let writing: Promise<void> | undefined;

  const write = async () => {
    let sinceMs = clock.monotonic();
    for (const name of changed) {
      if (stop.signal.aborted) break;
      if (clock.monotonic() - sinceMs >= SLICE_MS) {
        await new Promise<void>((resolve) => clock.timer(0, resolve));
        sinceMs = clock.monotonic();
      }
      changed.delete(name);
      try {
        await put(registries, name, recordOf(name, known.get(name), domain, isAway, clock));
      } catch (err) {
        log.warn({ nse: name, err }, "an endpoint of another domain cannot be taken");
      }
    }
    writing = undefined;
  };
  const publish = (names: Iterable<string>) => {
    for (const name of names) changed.add(name);
    if (changed.size > 0) writing ??= Promise.resolve().then(write);
  };
  const setAway = (now: boolean) => {
    silence?.[Symbol.dispose]();
    silence = undefined;
    if (isAway === now) return;
    isAway = now;
    log.info(
      { domain },
      now ? "a domain does not answer: its endpoints come last" : "a domain answers again",
    );
    publish(known.keys());
  };
  const isWellNamed = (service: string, { name, networkServiceNames: names }: NetworkServiceEndpoint) =>
    splitDomain(name).domain === domain && names.includes(joinDomain(service, domain));
  const hear = (service: string, entry: NetworkServiceEndpoint) => {
    if (!isWellNamed(service, entry)) return; // another domain's, which this one does not speak for
    const { name } = entry;
    const heard = known.get(name);
    if (heard === undefined && known.size >= MOST_ENDPOINTS) {
      if (!isFloodTold)
        log.warn({ domain }, `more than ${MOST_ENDPOINTS} endpoints: the others are not taken`);
      isFloodTold = true;
      return;
    }
    const imported = heard ?? { byService: new Map<string, NetworkServiceEndpoint>(), heardAtMs: 0 };
    imported.byService.set(service, entry);
    imported.heardAtMs = clock.monotonic();
    known.set(name, imported);
    publish([name]);
  };
  const forget = (service: string, name: string) => {
    const imported = known.get(name);
    if (imported?.byService.delete(service) !== true) return;
    if (imported.byService.size === 0) known.delete(name);
    publish([name]);
  };

  return {
    take(service) {
      if (watches.has(service)) return;
      const ended = new AbortController();
      const query = create(NetworkServiceEndpointSchema, {
        networkServiceNames: [joinDomain(service, domain)],
      });
      const follow = keepWatch(
        {
          registry: elsewhere.endpoints,
          query,
          signal: AbortSignal.any([ended.signal, stop.signal]),
          log,
          listing,
        },
        { entries: new Map<string, NetworkServiceEndpoint>(), isTold: false },
        {
          onChange(before, now) {
            if (now !== undefined) hear(service, now);
            else if (before !== undefined) forget(service, before.name);
          },
          onCurrent() {
            current.add(service);
            setAway(false);
          },
          onBroken(error) {
            current.delete(service);
            // It is not away: there is no such domain any more.
            if (codeOf(error) === "NOT_FOUND") for (const name of known.keys()) forget(service, name);
            if (current.size === 0) silence ??= clock.timer(AWAY_AFTER_MS, () => setAway(true));
          },
        },
      );
      watches.set(service, { stop: ended, ended: follow });
    },
    leave(service) {
      watches.get(service)?.stop.abort();
      watches.delete(service);
      current.delete(service);
      for (const name of known.keys()) forget(service, name);
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      silence?.[Symbol.dispose]();
      await Promise.all([...watches.values()].map(({ ended }) => ended));
      await writing;
    },
  };
}

/** As this domain's registry has it; undefined for one that is not known any more, or whose lease has ended. */
function recordOf(
  name: string,
  imported: Imported | undefined,
  domain: string,
  isAway: boolean,
  clock: Clock,
): NetworkServiceEndpoint | undefined {
  const [last] = [...(imported?.byService.values() ?? [])].slice(-1);
  const leftMs = imported === undefined ? 0 : imported.heardAtMs + FOREIGN_LEASE_MS - clock.monotonic();
  if (imported === undefined || last === undefined || leftMs <= 0) return undefined;
  const record = clone(NetworkServiceEndpointSchema, last);
  record.name = name;
  record.networkServiceNames = [...imported.byService.keys()];
  record.networkServiceLabels = Object.fromEntries(
    [...imported.byService].map(([service, entry]) => {
      const said = Object.entries(labelsFor(entry, joinDomain(service, domain)));
      const labels = Object.fromEntries(said.filter(([label]) => label !== AWAY_LABEL));
      labels[DOMAIN_LABEL] = domain;
      if (isAway) labels[AWAY_LABEL] = "true";
      return [service, create(NetworkServiceLabelsSchema, { labels })];
    }),
  );
  record.expirationTime = timestampFromMs(clock.now() + leftMs);
  return record;
}

async function put(
  { endpoints }: Registries,
  name: string,
  record: NetworkServiceEndpoint | undefined,
): Promise<void> {
  const ctx: RegistryContext = {
    signal: new AbortController().signal,
    deadlineMs: undefined,
    peer: undefined, // this process's own decision
    registration: { path: EMPTY_PATH },
  };
  if (record !== undefined) await endpoints.register(record, ctx);
  else await endpoints.unregister(create(NetworkServiceEndpointSchema, { name }), ctx);
}
