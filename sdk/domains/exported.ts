/**
 * A registry as another domain may see it: the services that are exported to it, and their endpoints (docs/protocol.md, "Exports").
 * What is not exported looks exactly like what does not exist.
 */
import { clone, create, equals } from "@bufbuild/protobuf";
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import { abortWith } from "../abort-with.ts";
import { NsmError } from "../errors.ts";
import { matchesEndpoint, matchesNetworkService } from "../match.ts";
import { spiffeIdOf } from "../policies.ts";
import { findAll } from "../registry/registry.ts";
import type { Found, Registries, Registry, RegistryContext } from "../registry/registry.ts";
import { isSpiffeId, parseSpiffeId } from "../spiffe/id.ts";
import type { Exports } from "./exports.ts";
import { hasDomain } from "./name.ts";

export interface ExportedOptions {
  readonly home: Registries;
  readonly exports: Exports;
  /** For whom this is. */
  readonly domain: string;
  /** True for an endpoint that another domain has registered here: where it is, is that domain's to say. */
  readonly isElsewhere: (endpoint: NetworkServiceEndpoint) => boolean;
}

export function exportedRegistries({ home, exports, domain, isElsewhere }: ExportedOptions): Registries {
  const isOpen = (service: string) => !hasDomain(service) && exports.isExported(service, domain);
  const showService = (service: NetworkService): NetworkService | undefined => {
    if (!isOpen(service.name)) return undefined;
    const { name, payload, matches, pathIds } = service;
    return create(NetworkServiceSchema, { name, payload, matches, pathIds });
  };
  const showEndpoint = (endpoint: NetworkServiceEndpoint): NetworkServiceEndpoint | undefined => {
    const shown = clone(NetworkServiceEndpointSchema, endpoint);
    shown.networkServiceNames = shown.networkServiceNames.filter(isOpen);
    if (hasDomain(endpoint.name) || shown.networkServiceNames.length === 0) return undefined;
    const labels = Object.entries(shown.networkServiceLabels);
    shown.networkServiceLabels = Object.fromEntries(labels.filter(([service]) => isOpen(service)));
    if (!isElsewhere(endpoint)) shown.url = ""; // the proxy answers for it
    return shown;
  };
  return {
    services: {
      find: shownTo(NetworkServiceSchema, home.services, exports, showService, matchesNetworkService),
      // A service that takes endpoints of others in stays as it is defined here.
      async register(service, ctx) {
        if (!exports.accepts(service.name, domain)) throw notAccepted(service.name, domain);
        const query = create(NetworkServiceSchema, { name: service.name });
        const [found] = await findAll(home.services, query, ctx.signal);
        return (found && showService(found)) ?? service;
      },
      unregister: () => Promise.resolve(),
    },
    endpoints: {
      find: shownTo(NetworkServiceEndpointSchema, home.endpoints, exports, showEndpoint, matchesEndpoint),
      async register(endpoint, ctx) {
        checkOwnNames(endpoint, ctx, endpoint.pathIds);
        const { networkServiceNames: services } = endpoint;
        const closed = services.find((service) => !exports.accepts(service, domain));
        if (closed !== undefined || services.length === 0) throw notAccepted(closed ?? "", domain);
        return await home.endpoints.register(endpoint, ctx);
      },
      // Nothing can be theirs where nothing was accepted.
      async unregister(endpoint, ctx) {
        if (!exports.acceptsAny(domain)) return;
        checkOwnNames(endpoint, ctx, []);
        await home.endpoints.unregister(endpoint, ctx);
      },
    },
  };
}

/** A find of which only what `show` leaves is told, also when that changes. */
function shownTo<D extends DescMessage>(
  schema: D,
  registry: Registry<MessageShape<D> & { readonly name: string }>,
  exports: Exports,
  show: (entry: Entry<D>) => Entry<D> | undefined,
  matches: (query: Entry<D>, entry: Entry<D>) => boolean,
): Registry<Entry<D>>["find"] {
  return async function* find({ entry: query, watch }, ctx) {
    if (isForeignQuery(query)) throw thirdDomain(query.name);
    // Whoever stops reading a watch ends it, also while it is silent.
    using end = watch ? endWithReader(ctx.signal) : undefined;
    const signal = end?.signal ?? ctx.signal;
    const visible = (entry: Entry<D>) => {
      const shown = show(entry);
      return shown !== undefined && matches(query, shown) ? shown : undefined;
    };
    /** What the domain has heard of and is still there for it. What it may not see is not kept, however much there is. */
    const heard = new Map<string, Entry<D>>();
    const news = (entry: Entry<D>, deleted: boolean): Found<Entry<D>>[] => {
      const before = heard.get(entry.name);
      const now = deleted ? undefined : visible(entry);
      if (now === undefined) {
        heard.delete(entry.name);
        return before === undefined ? [] : [{ entry: before, deleted: true }];
      }
      if (watch) heard.set(entry.name, now);
      return before !== undefined && equals(schema, before, now) ? [] : [{ entry: now, deleted: false }];
    };
    for await (const each of withChanges(
      registry.find({ entry: query, watch }, { signal }),
      exports,
      watch,
    )) {
      if (each !== CHANGED) {
        yield* news(each.entry, each.deleted);
        continue;
      }
      // What is withdrawn goes at once, whether or not the registry answers; what is new has to be asked for.
      for (const entry of heard.values()) yield* news(entry, false);
      for (const entry of await findAll(registry, query, signal)) yield* news(entry, false);
    }
  };
}

function endWithReader(signal: AbortSignal): Disposable & { readonly signal: AbortSignal } {
  const stop = abortWith(signal);
  return {
    signal: stop.signal,
    [Symbol.dispose]() {
      stop[Symbol.dispose]();
      stop.abort(READER_LEFT);
    },
  };
}

const READER_LEFT = new NsmError("CANCELLED", "reader-left", "nobody reads this any more");

type Entry<D extends DescMessage> = MessageShape<D> & { readonly name: string };

const CHANGED = Symbol("the exports have changed");

/** Items as they come, and between them a word whenever the exports have changed. */
async function* withChanges<T>(
  items: AsyncIterable<T>,
  exports: Exports,
  watch: boolean,
): AsyncGenerator<T | typeof CHANGED> {
  if (!watch) {
    yield* items;
    return;
  }
  let isChanged = false;
  let wake: () => void = () => undefined;
  using listening = exports.onChange(() => {
    isChanged = true;
    wake();
  });
  void listening;
  const iterator = items[Symbol.asyncIterator]();
  let next: { result: IteratorResult<T> } | { error: unknown } | undefined;
  const ask = () => {
    next = undefined;
    iterator.next().then(
      (result) => {
        next = { result };
        wake();
      },
      (error: unknown) => {
        next = { error };
        wake();
      },
    );
  };
  ask();
  for (;;) {
    if (isChanged) {
      isChanged = false;
      yield CHANGED;
    } else if (next === undefined) {
      await new Promise<void>((resolve) => (wake = resolve));
    } else {
      if ("error" in next) throw next.error;
      if (next.result.done === true) return;
      const { value } = next.result;
      ask();
      yield value;
    }
  }
}

/**
 * A domain registers in the name of its own people alone. `ids`: who the record says it comes from. Throws PERMISSION_DENIED
 * `forged-name`, INVALID_ARGUMENT `third-domain`.
 */
function checkOwnNames(
  { name, networkServiceNames }: NetworkServiceEndpoint,
  { peer, registration }: RegistryContext,
  ids: readonly string[],
): void {
  const foreign = [name, ...networkServiceNames].find(hasDomain);
  if (foreign !== undefined) throw thirdDomain(foreign);
  if (peer === undefined) return;
  const { trustDomain } = parseSpiffeId(peer.spiffeId);
  const { index, tokens } = registration.path;
  const claimed = [...tokens.slice(0, index).map(spiffeIdOf), ...ids.slice(0, index)];
  for (const id of claimed)
    if (!isSpiffeId(id) || parseSpiffeId(id).trustDomain !== trustDomain)
      throw new NsmError(
        "PERMISSION_DENIED",
        "forged-name",
        `${peer.spiffeId} may register for ids of ${trustDomain} alone, not for ${JSON.stringify(id)}`,
      );
}

function isForeignQuery(query: {
  readonly name: string;
  readonly networkServiceNames?: readonly string[];
}): boolean {
  return [query.name, ...(query.networkServiceNames ?? [])].some(hasDomain);
}

function thirdDomain(name: string): NsmError {
  return new NsmError(
    "INVALID_ARGUMENT",
    "third-domain",
    `${JSON.stringify(name)} is a name of yet another domain: ask that one, nobody is led there through this one`,
  );
}

function notAccepted(service: string, domain: string): NsmError {
  return new NsmError(
    "PERMISSION_DENIED",
    "not-accepted",
    `domain ${JSON.stringify(domain)} may not register for network service ${JSON.stringify(service)} here: nsm export --accept-endpoints, or acceptEndpointsFrom of the service, allows it`,
  );
}
