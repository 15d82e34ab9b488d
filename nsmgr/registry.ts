/** The manager's registries: local endpoints are published under the manager's URL, and found under their own (docs/protocol.md, "Registry"). */
import { clone } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { NetworkServiceEndpointSchema } from "../api/gen/registry_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { addClientInfo } from "../sdk/client-info.ts";
import type { ClientInfo } from "../sdk/client-info.ts";
import type { Clock } from "../sdk/clock.ts";
import { hasDomain } from "../sdk/domains/name.ts";
import { checkTcpUrl } from "../sdk/endpoint-url.ts";
import type { RefusedAddresses } from "../sdk/endpoint-url.ts";
import { NsmError } from "../sdk/errors.ts";
import { holdProcess, whenEnded } from "../sdk/grpc/process.ts";
import type { Logger } from "../sdk/log.ts";
import type { Found, Registries, Registry, RegistryContext } from "../sdk/registry/registry.ts";
import type { LocalEndpoint, LocalEndpoints } from "./local-endpoints.ts";

/** Longest life of a registration without a refresh; the value of the Go managers. */
const EXPIRY_MS = 60_000;
/** Failures of a Register that say that the registry, or the way to it, is away. */
const REGISTRY_AWAY: ReadonlySet<string> = new Set(["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"]);
/** How often registrations that ran out are forgotten. The death of a process is an event. */
const SWEEP_MS = 1000;

export interface ManagerRegistryOptions {
  readonly upstream: Registries;
  readonly local: LocalEndpoints;
  readonly publicUrl: string;
  readonly forwarderService: string;
  /** True for ids that may register as forwarder. */
  readonly mayForward: (spiffeId: string) => boolean;
  readonly info: ClientInfo;
  /** Networks that no endpoint's URL may lead to. */
  readonly refusedAddresses: RefusedAddresses;
  /** A forwarder has registered, or again, and serves at this URL. */
  readonly onForwarder?: (url: string) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

export function createManagerRegistries(options: ManagerRegistryOptions): Registries & Disposable {
  const stop = new AbortController();
  const registering = new Map<string, Registering>();
  let timer: Disposable;
  const onEnded = () => sweep(options, registering, stop.signal);
  const tick = () => {
    onEnded();
    timer = options.clock.timer(SWEEP_MS, tick);
  };
  tick();
  return {
    services: createServiceRegistry(options.upstream),
    endpoints: createEndpointRegistry(options, registering, onEnded),
    [Symbol.dispose]() {
      stop.abort();
      timer[Symbol.dispose]();
    },
  };
}

/** What is on its way to the registry, by name: where it is, and whose. */
interface Registering {
  readonly url: string;
  readonly owner: string | undefined;
}

/** Services are the registry's; only what it would refuse in any case goes no further. */
function createServiceRegistry({ services }: Registries): Registry<NetworkService> {
  return {
    ...services,
    async register(service, ctx) {
      requireName(service.name, "a network service needs a name");
      return await services.register(service, ctx);
    },
  };
}

/** `onEnded` is called when a process that registered has ended. */
function createEndpointRegistry(
  options: ManagerRegistryOptions,
  registering: Map<string, Registering>,
  onEnded: () => void,
): Registry<NetworkServiceEndpoint> {
  const { upstream, local, publicUrl } = options;
  const forwarderNames = new Set<string>();
  return {
    async register(entry, ctx) {
      const callerUrl = entry.url;
      checkEndpoint(entry, ctx, options, forwarderNames);
      const place = placeOf(entry, ctx, options, onEnded);
      const published = clone(NetworkServiceEndpointSchema, entry);
      published.url = publicUrl;
      addInfo(published, options.info);
      const latestMs = Math.min(options.clock.now() + EXPIRY_MS, ctx.latestExpiryMs ?? Infinity);
      limitLife(published, latestMs);
      const path = ctx.registration.path;
      // The registry tells its watchers before it answers Register.
      registering.set(entry.name, { url: place.url, owner: entry.pathIds[0] });
      try {
        const stored = await upstream.endpoints.register(published, ctx);
        local.set({ ...place, entry: clone(NetworkServiceEndpointSchema, stored), path });
        if (isForwarder(stored, options)) {
          forwarderNames.add(stored.name);
          options.onForwarder?.(place.url);
        }
        stored.url = callerUrl;
        return stored;
      } catch (error) {
        place.dispose();
        // It is there and wants to stay. That the registry is away must not take its forwarder from a wire.
        const known = local.get(entry.name);
        const isSame = known?.url === place.url && known.entry.pathIds[0] === entry.pathIds[0];
        if (isSame && error instanceof NsmError && REGISTRY_AWAY.has(error.code))
          local.prolong(entry.name, latestMs);
        throw error;
      } finally {
        registering.delete(entry.name);
      }
    },
    async *find(query, ctx): AsyncGenerator<Found<NetworkServiceEndpoint>> {
      for await (const found of upstream.endpoints.find(query, ctx)) {
        const { entry, deleted } = found;
        const isHere = entry.url === publicUrl;
        const onItsWay = registering.get(entry.name);
        // In another domain (`name@floating`) it has the address of this domain's proxy.
        const isOnItsWay = isHere || (hasDomain(entry.name) && onItsWay?.owner === entry.pathIds[0]);
        const url = local.get(entry.name)?.url ?? (isOnItsWay ? onItsWay?.url : undefined);
        if (url !== undefined) entry.url = url;
        else if (isHere && !deleted)
          continue; // not registered again since we restarted
        else if (!/^tcp:/i.test(entry.url) && !deleted) continue; // a path of another node means nothing here
        yield found;
      }
    },
    async unregister(entry, ctx) {
      const known = local.get(entry.name);
      // Also what registered before we restarted: the registry knows whose it is.
      const published = clone(NetworkServiceEndpointSchema, known?.entry ?? entry);
      if (known === undefined) published.url = publicUrl;
      delete published.expirationTime;
      await upstream.endpoints.unregister(published, ctx);
      local.delete(entry.name);
    },
  };
}

function checkEndpoint(
  entry: NetworkServiceEndpoint,
  ctx: RegistryContext,
  options: ManagerRegistryOptions,
  forwarderNames: ReadonlySet<string>,
): void {
  requireName(entry.name, "an endpoint needs a unique name: set one, for instance the pod's");
  // The name of a forwarder stays one: connections remember their forwarder by it.
  if (!isForwarder(entry, options) && !forwarderNames.has(entry.name)) return;
  const id = ctx.peer?.spiffeId ?? "";
  if (!options.mayForward(id))
    throw new NsmError(
      "PERMISSION_DENIED",
      "not-a-forwarder",
      `${id} may not register ${entry.name} for service ${options.forwarderService}: add its id to NSM_FORWARDER_IDS of the manager`,
    );
  if (ctx.peer?.transport !== "unix")
    throw new NsmError(
      "PERMISSION_DENIED",
      "not-local",
      `${entry.name} is no forwarder of this node: register it on the unix socket of its own manager`,
    );
}

function isForwarder(entry: NetworkServiceEndpoint, options: ManagerRegistryOptions): boolean {
  return entry.networkServiceNames.includes(options.forwarderService);
}

function requireName(name: string, message: string): void {
  if (name === "") throw new NsmError("INVALID_ARGUMENT", "name-missing", message);
}

/** What Go endpoints make of their unix sockets. */
const PASSED_SOCKET =
  "; a socket that is passed as a descriptor is not taken: let the endpoint listen on tcp://address:port, or register the unix:///path of its socket";

/** Where an endpoint is, as this node sees it. */
function placeOf(
  entry: NetworkServiceEndpoint,
  ctx: RegistryContext,
  options: ManagerRegistryOptions,
  onEnded: () => void,
): Pick<LocalEndpoint, "url" | "isAlive" | "dispose"> {
  const { url } = entry;
  if (/^tcp:/i.test(url)) {
    checkTcpUrl(url, options.refusedAddresses, `endpoint ${entry.name}`);
    return { url, isAlive: () => true, dispose: () => undefined };
  }
  if (!/^unix:\/\/\/\P{Cc}+$/u.test(url))
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-endpoint-url",
      `endpoint ${entry.name} has url ${JSON.stringify(url)}: expected unix:///path or tcp://host:port${url.startsWith("inode:") ? PASSED_SOCKET : ""}`,
    );
  const process = ctx.peer?.process;
  if (process === undefined)
    throw new NsmError(
      "PERMISSION_DENIED",
      "not-local",
      `endpoint ${entry.name} has a unix socket: register it on the manager's unix socket`,
    );
  // A forwarder's socket lies in the view that the node's daemons share; an endpoint's in its own.
  const shared = entry.networkServiceNames.includes(options.forwarderService);
  const path = url.slice("unix://".length);
  const held = holdProcess(process);
  if (held === undefined)
    throw new NsmError(
      "CANCELLED",
      "caller-gone",
      `process ${process.pid} ended while it registered ${entry.name}`,
    );
  const watch = whenEnded(held, options.clock, onEnded);
  return {
    url: shared ? url : `unix:///proc/${process.pid}/root${path}`,
    isAlive: () => held.isAlive(),
    dispose() {
      watch[Symbol.dispose]();
      held[Symbol.dispose]();
    },
  };
}

/** To the labels that the endpoint has: a service without any keeps none. */
function addInfo(entry: NetworkServiceEndpoint, info: ClientInfo): void {
  for (const { labels } of Object.values(entry.networkServiceLabels)) addClientInfo(labels, info);
}

function limitLife(entry: NetworkServiceEndpoint, latestMs: number): void {
  if (entry.expirationTime === undefined || timestampMs(entry.expirationTime) > latestMs)
    entry.expirationTime = timestampFromMs(latestMs);
}

/** Takes out of the registry what died; what merely expired leaves it by itself, and what its successor is replacing is that one's. */
function sweep(
  options: ManagerRegistryOptions,
  registering: ReadonlyMap<string, Registering>,
  signal: AbortSignal,
): void {
  const { local, upstream, log } = options;
  for (const { name, why } of local.gone()) {
    const known = local.get(name);
    local.delete(name);
    if (known === undefined || why === "expired" || registering.has(name)) continue;
    log.info({ nse: name }, "its process ended, unregistering");
    const ctx: RegistryContext = {
      signal: AbortSignal.any([signal, AbortSignal.timeout(5000)]),
      deadlineMs: undefined,
      peer: undefined,
      registration: { path: known.path },
    };
    upstream.endpoints.unregister(known.entry, ctx).catch((err: unknown) => {
      if (!signal.aborted)
        log.warn({ nse: name, err }, "unregistering failed; the registration runs out by itself");
    });
  }
}
