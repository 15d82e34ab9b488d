/** Which endpoints a client may reach (docs/protocol.md, "Matching"). Pure: the clock is passed in. */
import type { Connection } from "../api/gen/connection_pb.js";
import type { Match, NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { NsmError } from "./errors.ts";
import { preferenceOf } from "./prefer.ts";
import type { Preference } from "./prefer.ts";
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
  /** Who is better than others is asked first, whatever the turns say. */
  readonly preference: Preference;
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

/**
 * What the labels of a connection that names `endpoint` lead to, when that endpoint is among it. Throws NOT_FOUND as `discover`, and
 * `endpoint-mismatch`.
 */
export function checkNamed(input: DiscoverInput, endpoint: NetworkServiceEndpoint): void {
  const { connection } = input;
  const found = discover({ ...input, connection: { ...connection, networkServiceEndpointName: "" } });
  if (found.kind === "matched" && found.candidates.some((each) => each.endpoint.name === endpoint.name))
    return;
  throw new NsmError(
    "NOT_FOUND",
    "endpoint-mismatch",
    `network service ${JSON.stringify(connection.networkService)} does not lead a client with labels ${labelText(connection.labels)} to the endpoint ${JSON.stringify(endpoint.name)} that it names: name none, or compare the matches of the service`,
  );
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
 * `endpoints` are those of the service. A match is not the one that decides because of endpoints alone whose domains do not answer, as
 * long as another one is fallen through to; they come behind.
 */
export function matchEndpoints(
  service: NetworkService,
  client: Labels,
  endpoints: readonly NetworkServiceEndpoint[],
): readonly Candidate[] {
  const isAway = (endpoint: NetworkServiceEndpoint) =>
    preferenceOf(client, labelsFor(endpoint, service.name)).isAway;
  const all = matchAll(service, client, endpoints);
  if (!all.some(({ preference }) => preference.isAway)) return all;
  const present = matchAll(
    service,
    client,
    endpoints.filter((endpoint) => !isAway(endpoint)),
  );
  return [...present, ...all.filter(({ preference }) => preference.isAway)];
}

function matchAll(
  service: NetworkService,
  client: Labels,
  endpoints: readonly NetworkServiceEndpoint[],
): readonly Candidate[] {
  const candidate = (endpoint: NetworkServiceEndpoint, match?: number, route?: number): Candidate => ({
    endpoint,
    weight: weightOf(service, match, route),
    match,
    route,
    preference: preferenceOf(client, labelsFor(endpoint, service.name)),
  });
  if (service.matches.length === 0) return endpoints.map((endpoint) => candidate(endpoint));
  return firstMatch(service, client, (match, index) => {
    const found = match.routes.flatMap((route, routeIndex) =>
      endpoints
        .filter((endpoint) => isSubset(route.destinationSelector, labelsFor(endpoint, service.name), client))
        .map((endpoint) => candidate(endpoint, index, routeIndex)),
    );
    const standsForAll = match.metadata !== undefined && match.routes.length === 0 && !match.fallthrough;
    return standsForAll ? endpoints.map((endpoint) => candidate(endpoint, index)) : found;
  });
}

export function firstMatch<T>(
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

function weightOf({ matches }: NetworkService, match: number | undefined, route: number | undefined): number {
  if (match === undefined || route === undefined) return 1;
  return Math.max(1, matches[match]?.routes[route]?.weight ?? 1);
}

/** The labels that an endpoint carries for one of its services. */
export function labelsFor(endpoint: NetworkServiceEndpoint, service: string): Labels {
  const all = endpoint.networkServiceLabels;
  return Object.hasOwn(all, service) ? (all[service]?.labels ?? {}) : {};
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

/** Labels for an error text, of bounded length. */
export function labelText(labels: Labels): string {
  const text = JSON.stringify(labels);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
