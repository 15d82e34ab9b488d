/**
 * Selection: which endpoints a client may reach, which forwarders a manager may use, and in what order they are tried
 * (docs/protocol.md, "Matching"). Pure: clock and turns are passed in.
 */
import type { Connection } from "../api/gen/connection_pb.js";
import { State } from "../api/gen/connection_pb.js";
import type { Match, NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { NsmError } from "./errors.ts";
import { isSubset } from "./selector-template.ts";
import type { Labels } from "./selector-template.ts";

export { isSubset, renderSelectorValue } from "./selector-template.ts";
export type { Labels } from "./selector-template.ts";
export { matchesEndpoint, matchesMonitorSelector, matchesNetworkService } from "./query.ts";
export { createTurns, orderByTurn } from "./turns.ts";
export type { Turns } from "./turns.ts";

/** An endpoint that may serve a connection, and which rule said so. */
export interface Candidate {
  readonly endpoint: NetworkServiceEndpoint;
  /** Share of the traffic relative to the other candidates: the route's weight, at least 1. */
  readonly weight: number;
  /** Index in the service's matches; undefined when the service has none. */
  readonly match: number | undefined;
  /** Index in the match's routes; undefined when the match or the service stands for every endpoint. */
  readonly route: number | undefined;
}

/** Where a connection may go. `named`: the client chose the endpoint itself, labels were not looked at. */
export type Discovery =
  | { readonly kind: "named"; readonly endpoint: NetworkServiceEndpoint }
  | { readonly kind: "matched"; readonly payload: string; readonly candidates: readonly Candidate[] };

export interface DiscoverInput {
  readonly connection: Connection;
  /** What the registry knows; records that do not concern the connection are skipped. */
  readonly services: readonly NetworkService[];
  readonly endpoints: readonly NetworkServiceEndpoint[];
  /** Wall clock, milliseconds since 1970. */
  readonly nowMs: number;
}

/**
 * Resolves the endpoint that the connection names, or else the candidates of its network service. `candidates` is in the
 * order of routes and registry, never empty, and holds an endpoint twice when two routes lead to it.
 * Throws NOT_FOUND: `service-not-found`, `endpoint-not-found`, `no-candidates`.
 */
export function discover(input: DiscoverInput): Discovery {
  const { connection, services, endpoints, nowMs } = input;
  const name = connection.networkServiceEndpointName;
  if (name !== "") {
    const endpoint = endpoints.find((record) => record.name === name);
    if (endpoint === undefined) throw notFound("endpoint", name, "is it registered, and on this mesh?");
    return { kind: "named", endpoint };
  }
  const service = findService(services, connection);
  const live = endpoints.filter(
    (endpoint) => endpoint.networkServiceNames.includes(service.name) && !isExpired(endpoint, nowMs),
  );
  const candidates = matchEndpoints(service, connection.labels, live);
  if (candidates.length === 0) throw noCandidates(service, connection.labels, live.length);
  return { kind: "matched", payload: service.payload, candidates };
}

/** The service that the connection asks for, of its payload when it has one. Throws NOT_FOUND `service-not-found`. */
export function findService(services: readonly NetworkService[], connection: Connection): NetworkService {
  const { networkService, payload } = connection;
  const service = services.find(
    (record) => record.name === networkService && (payload === "" || payload === record.payload),
  );
  if (service !== undefined) return service;
  const kind = payload === "" ? "" : ` with payload ${payload}`;
  throw notFound("service", networkService, `register it${kind}, or correct the name`);
}

/** True once `expiration_time` is reached; a record without it never expires. */
export function isExpired(endpoint: NetworkServiceEndpoint, nowMs: number): boolean {
  const expiry = endpoint.expirationTime;
  if (expiry === undefined) return false;
  // In two steps: nanoseconds since 1970 do not fit a double.
  const leftMs = Number(expiry.seconds) * 1000 - nowMs;
  return leftMs * 1e6 + expiry.nanos <= 0;
}

/**
 * The match rules: the first match whose source selector fits the client decides, unless it leads nowhere and falls through.
 * `endpoints` are those of the service.
 */
export function matchEndpoints(
  service: NetworkService,
  client: Labels,
  endpoints: readonly NetworkServiceEndpoint[],
): readonly Candidate[] {
  if (service.matches.length === 0) return everyOne(endpoints, undefined);
  return firstMatch(service, client, (match, index) => {
    const found = match.routes.flatMap((route, routeIndex) =>
      endpoints
        .filter((endpoint) => isSubset(route.destinationSelector, labelsFor(endpoint, service.name), client))
        .map((endpoint) => ({
          endpoint,
          weight: Math.max(1, route.weight),
          match: index,
          route: routeIndex,
        })),
    );
    const standsForAll = match.metadata !== undefined && match.routes.length === 0 && !match.fallthrough;
    return standsForAll ? everyOne(endpoints, index) : found;
  });
}

function firstMatch<T>(
  service: NetworkService,
  client: Labels,
  candidatesOf: (match: Match, index: number) => readonly T[],
): readonly T[] {
  for (const [index, match] of service.matches.entries()) {
    if (!isSubset(match.sourceSelector, client)) continue;
    const found = candidatesOf(match, index);
    if (found.length > 0 || !match.fallthrough) return found;
  }
  return [];
}

function everyOne(endpoints: readonly NetworkServiceEndpoint[], match: number | undefined): Candidate[] {
  return endpoints.map((endpoint) => ({ endpoint, weight: 1, match, route: undefined }));
}

/** The labels that an endpoint carries for one of its services. */
function labelsFor(endpoint: NetworkServiceEndpoint, service: string): Labels {
  const all = endpoint.networkServiceLabels;
  return Object.hasOwn(all, service) ? (all[service]?.labels ?? {}) : {};
}

export interface ForwarderInput {
  readonly connection: Connection;
  readonly services: readonly NetworkService[];
  /** What the registry knows of forwarders, in its order. */
  readonly forwarders: readonly NetworkServiceEndpoint[];
  /** Service under which forwarders register (`forwarder`). */
  readonly forwarderService: string;
  /** Only forwarders whose recorded URL contains this one are ours. */
  readonly managerUrl: string;
  /** Name of the forwarder that served this connection before. */
  readonly remembered: string | undefined;
}

/**
 * The forwarders that a manager tries for a Request, in this order. A remembered one is the only choice unless the
 * connection asks for a new selection.
 * Throws NOT_FOUND `service-not-found`; UNAVAILABLE `forwarder-gone` (the remembered one), `no-forwarder`.
 */
export function selectForwarders(input: ForwarderInput): readonly NetworkServiceEndpoint[] {
  const { connection, forwarderService } = input;
  const reselect = connection.state === State.RESELECT_REQUESTED;
  const remembered = reselect ? undefined : input.remembered;
  const service = findService(input.services, connection);
  const local = input.forwarders.filter(
    (forwarder) =>
      forwarder.networkServiceNames.includes(forwarderService) &&
      forwarder.url.includes(input.managerUrl) &&
      (remembered === undefined || forwarder.name === remembered),
  );
  const fitting = matchForwarders(service, connection.labels, local, forwarderService);
  if (fitting.length === 0) throw noForwarder(service, connection.labels, local.length, remembered);
  return reselect || remembered !== undefined ? fitting : nextHopFirst(fitting, connection);
}

/** The forwarder that a Close goes to: the remembered one, else the one that the path names; undefined when it is gone. */
export function forwarderOfClose(
  input: Omit<ForwarderInput, "services" | "forwarderService">,
): NetworkServiceEndpoint | undefined {
  const name = input.remembered ?? nextHop(input.connection);
  return input.forwarders.find(
    (forwarder) => forwarder.name === name && forwarder.url.includes(input.managerUrl),
  );
}

function matchForwarders(
  service: NetworkService,
  client: Labels,
  forwarders: readonly NetworkServiceEndpoint[],
  forwarderService: string,
): readonly NetworkServiceEndpoint[] {
  if (service.matches.length === 0) return forwarders;
  return firstMatch(service, client, (match) => {
    const asked = match.metadata?.labels ?? {};
    const selector = Object.keys(asked).length > 0 ? asked : { p2p: "true" };
    return forwarders.filter((forwarder) =>
      isSubset(selector, labelsFor(forwarder, forwarderService), client),
    );
  });
}

/** A manager that restarted finds its former choice in the path; that one changes places with the first. */
function nextHopFirst(
  forwarders: readonly NetworkServiceEndpoint[],
  connection: Connection,
): readonly NetworkServiceEndpoint[] {
  const at = forwarders.findIndex((forwarder) => forwarder.name === nextHop(connection));
  const [first, preferred] = [forwarders[0], forwarders[at]];
  if (first === undefined || preferred === undefined) return forwarders;
  return forwarders.with(at, first).with(0, preferred);
}

function nextHop(connection: Connection): string | undefined {
  const path = connection.path;
  return path?.pathSegments[path.index + 1]?.name;
}

function notFound(what: "service" | "endpoint", name: string, remedy: string): NsmError {
  return new NsmError(
    "NOT_FOUND",
    `${what}-not-found`,
    `network service ${what === "endpoint" ? "endpoint " : ""}${JSON.stringify(name)} is not registered: ${remedy}`,
  );
}

function noCandidates(service: NetworkService, client: Labels, live: number): NsmError {
  const why =
    live === 0
      ? "no endpoint of it is registered and alive; start one"
      : `none of its ${live} endpoints fits a client with labels ${labelText(client)}; compare its matches`;
  return new NsmError(
    "NOT_FOUND",
    "no-candidates",
    `network service ${JSON.stringify(service.name)}: ${why}`,
  );
}

function noForwarder(
  service: NetworkService,
  client: Labels,
  local: number,
  remembered: string | undefined,
): NsmError {
  const name = JSON.stringify(service.name);
  if (remembered !== undefined && local === 0)
    return new NsmError("UNAVAILABLE", "forwarder-gone", `forwarder ${remembered} is not available`);
  const why =
    local === 0
      ? "no forwarder is registered on this node; start one"
      : `none of the ${local} forwarders of this node fits a client with labels ${labelText(client)}`;
  return new NsmError("UNAVAILABLE", "no-forwarder", `network service ${name}: ${why}`);
}

/** Labels for an error text, of bounded length. */
function labelText(labels: Labels): string {
  const text = JSON.stringify(labels);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
