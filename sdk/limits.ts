/** How large a message of a stranger may be (docs/protocol.md, "Limits"). Pure; sizes of texts are in UTF-8 bytes. */
import type { Connection, Mechanism, MonitorScopeSelector, Path } from "../api/gen/connection_pb.js";
import type { DNSContext, IPContext, Route } from "../api/gen/connectioncontext_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { NsmError } from "./errors.ts";
import { MAX_TOKEN_BYTES } from "./jwt.ts";
import { PATH_KEY, readRegistrationPath } from "./registry-path.ts";
import { TOKEN_EXPIRES_KEY, TOKEN_KEY } from "./token.ts";

/** Every limit. Those of messages are for the gRPC library, which answers RESOURCE_EXHAUSTED; all others are checked here. */
export const Limits = {
  /** One message of Request, Close, Register, Unregister, MonitorConnections: a full path with the longest tokens fits twice. */
  messageBytes: 512 * 1024,
  /** One message of Find. */
  findMessageBytes: 1024 * 1024,

  metadataBytes: 32 * 1024,
  metadataEntries: 64,
  registrationSegments: 8,

  /** A chain of pass-through endpoints adds four a node, six between nodes. */
  pathSegments: 64,
  segmentNameBytes: 253,
  segmentIdBytes: 64,
  tokenBytes: MAX_TOKEN_BYTES,

  /** Labels, selectors, metrics, extra context and mechanism parameters. */
  mapEntries: 32,
  mapKeyBytes: 63,
  mapValueBytes: 253,
  /** An IPSEC offer carries a certificate. */
  parameterBytes: 4096,
  mechanisms: 16,
  /** Mechanism class and type, payload. */
  wordBytes: 63,
  /** `name@domain` */
  nameBytes: 507,

  addresses: 16,
  routes: 64,
  policies: 16,
  /** After merging; a manager adds half of it at most. */
  excludedPrefixes: 256,
  neighbors: 32,
  extraPrefixes: 64,
  extraPrefixRequests: 16,
  /** An address, prefix, MAC or port range as text. */
  addressBytes: 64,
  dnsConfigs: 32,
  /** Over all configs. */
  dnsServers: 8,
  searchDomains: 32,
  domainBytes: 253,

  endpointServices: 16,
  urlBytes: 256,
  pathIds: 16,
  spiffeIdBytes: 2048,
  serviceMatches: 64,
} as const;

/** Keys of our own that have one meaning and so one value. */
const SINGLE_VALUED = new Set<string>([TOKEN_KEY, TOKEN_EXPIRES_KEY]);

/** Request. Throws INVALID_ARGUMENT `limit` that names the field, its size and the limit, as all checks here. */
export function checkRequestLimits(request: NetworkServiceRequest): void {
  const { connection, mechanismPreferences } = request;
  checkCount("mechanism_preferences", mechanismPreferences.length, Limits.mechanisms);
  for (const mechanism of mechanismPreferences) checkMechanism("mechanism_preferences", mechanism);
  if (connection !== undefined) checkConnectionLimits(connection);
}

/** Close, and the connection of a Request or of an answer. */
export function checkConnectionLimits(connection: Connection): void {
  const { mechanism, path, context } = connection;
  checkText("connection.id", connection.id, Limits.segmentIdBytes);
  checkText("connection.network_service", connection.networkService, Limits.nameBytes);
  checkText(
    "connection.network_service_endpoint_name",
    connection.networkServiceEndpointName,
    Limits.nameBytes,
  );
  checkText("connection.payload", connection.payload, Limits.wordBytes);
  checkMap("connection.labels", connection.labels);
  if (mechanism !== undefined) checkMechanism("connection.mechanism", mechanism);
  if (path !== undefined) checkPath("connection.path", path);
  if (context?.ipContext !== undefined) checkIpContext("connection.context.ip_context", context.ipContext);
  if (context?.dnsContext !== undefined)
    checkDnsContext("connection.context.dns_context", context.dnsContext);
  if (context !== undefined) checkMap("connection.context.extra_context", context.extraContext);
  checkText(
    "connection.context.ethernet_context.src_mac",
    context?.ethernetContext?.srcMac ?? "",
    Limits.addressBytes,
  );
  checkText(
    "connection.context.ethernet_context.dst_mac",
    context?.ethernetContext?.dstMac ?? "",
    Limits.addressBytes,
  );
}

/** MonitorConnections. */
export function checkSelectorLimits(selector: MonitorScopeSelector): void {
  checkSegments("path_segments", selector.pathSegments);
  checkTexts("network_services", selector.networkServices, Limits.endpointServices, Limits.nameBytes);
}

/** Register, Unregister and Find of endpoints. */
export function checkEndpointLimits(endpoint: NetworkServiceEndpoint): void {
  checkText("name", endpoint.name, Limits.nameBytes);
  checkText("url", endpoint.url, Limits.urlBytes);
  checkTexts(
    "network_service_names",
    endpoint.networkServiceNames,
    Limits.endpointServices,
    Limits.nameBytes,
  );
  const labels = Object.entries(endpoint.networkServiceLabels);
  checkCount("network_service_labels", labels.length, Limits.endpointServices);
  for (const [service, value] of labels) {
    checkText("network_service_labels", service, Limits.nameBytes);
    checkMap("network_service_labels", value.labels);
  }
  checkTexts("path_ids", endpoint.pathIds, Limits.pathIds, Limits.spiffeIdBytes);
}

/** Register, Unregister and Find of services. */
export function checkServiceLimits(service: NetworkService): void {
  checkText("name", service.name, Limits.nameBytes);
  checkText("payload", service.payload, Limits.wordBytes);
  checkTexts("path_ids", service.pathIds, Limits.pathIds, Limits.spiffeIdBytes);
  checkCount("matches", service.matches.length, Limits.serviceMatches);
  for (const match of service.matches) {
    checkMap("matches.source_selector", match.sourceSelector);
    checkMap("matches.metadata.labels", match.metadata?.labels ?? {});
    checkCount("matches.routes", match.routes.length, Limits.routes);
    for (const route of match.routes)
      checkMap("matches.routes.destination_selector", route.destinationSelector);
  }
}

/** Metadata of a call: `entries` are keys with all their values. */
export function checkMetadataLimits(
  entries: Iterable<readonly [key: string, values: readonly (string | Uint8Array)[]]>,
): void {
  let count = 0;
  let bytes = 0;
  for (const [key, values] of entries) {
    if (SINGLE_VALUED.has(key)) checkCount(`metadata ${key}`, values.length, 1);
    count += values.length;
    for (const value of values) bytes += key.length + Buffer.byteLength(value);
    if (key === PATH_KEY) checkRegistrationPath(values.filter((value) => typeof value === "string"));
  }
  checkCount("metadata", count, Limits.metadataEntries);
  check("metadata", bytes, "bytes", Limits.metadataBytes);
}

function checkRegistrationPath(values: readonly string[]): void {
  const path = readRegistrationPath({ get: () => values });
  checkTexts("metadata path", path?.tokens ?? [], Limits.registrationSegments, Limits.tokenBytes);
}

function checkMechanism(field: string, mechanism: Mechanism): void {
  checkText(`${field}.cls`, mechanism.cls, Limits.wordBytes);
  checkText(`${field}.type`, mechanism.type, Limits.wordBytes);
  checkMap(`${field}.parameters`, mechanism.parameters, Limits.parameterBytes);
}

function checkPath(field: string, path: Path): void {
  checkSegments(`${field}.path_segments`, path.pathSegments);
}

function checkSegments(field: string, segments: Path["pathSegments"]): void {
  checkCount(field, segments.length, Limits.pathSegments);
  for (const segment of segments) {
    checkText(`${field}.name`, segment.name, Limits.segmentNameBytes);
    checkText(`${field}.id`, segment.id, Limits.segmentIdBytes);
    checkText(`${field}.token`, segment.token, Limits.tokenBytes);
    checkMap(`${field}.metrics`, segment.metrics);
  }
}

function checkIpContext(field: string, context: IPContext): void {
  checkTexts(`${field}.src_ip_addrs`, context.srcIpAddrs, Limits.addresses, Limits.addressBytes);
  checkTexts(`${field}.dst_ip_addrs`, context.dstIpAddrs, Limits.addresses, Limits.addressBytes);
  checkRoutes(`${field}.src_routes`, context.srcRoutes);
  checkRoutes(`${field}.dst_routes`, context.dstRoutes);
  checkTexts(
    `${field}.excluded_prefixes`,
    context.excludedPrefixes,
    Limits.excludedPrefixes,
    Limits.addressBytes,
  );
  checkTexts(`${field}.extra_prefixes`, context.extraPrefixes, Limits.extraPrefixes, Limits.addressBytes);
  checkCount(`${field}.extra_prefix_request`, context.extraPrefixRequest.length, Limits.extraPrefixRequests);
  const neighbors = context.ipNeighbors.flatMap(({ ip, hardwareAddress }) => [ip, hardwareAddress]);
  checkCount(`${field}.ip_neighbors`, context.ipNeighbors.length, Limits.neighbors);
  checkTexts(`${field}.ip_neighbors`, neighbors, neighbors.length, Limits.addressBytes);
  checkCount(`${field}.policies`, context.policies.length, Limits.policies);
  for (const { from, proto, dstPort, srcPort, routes } of context.policies) {
    checkTexts(`${field}.policies`, [from, proto, dstPort, srcPort], 4, Limits.addressBytes);
    checkRoutes(`${field}.policies.routes`, routes);
  }
}

function checkRoutes(field: string, routes: readonly Route[]): void {
  checkCount(field, routes.length, Limits.routes);
  for (const { prefix, nextHop } of routes) checkTexts(field, [prefix, nextHop], 2, Limits.addressBytes);
}

function checkDnsContext(field: string, { configs }: DNSContext): void {
  checkCount(`${field}.configs`, configs.length, Limits.dnsConfigs);
  const servers = configs.flatMap((config) => config.dnsServerIps);
  const domains = configs.flatMap((config) => config.searchDomains);
  checkTexts(`${field}.configs.dns_server_ips`, servers, Limits.dnsServers, Limits.addressBytes);
  checkTexts(`${field}.configs.search_domains`, domains, Limits.searchDomains, Limits.domainBytes);
}

function checkMap(
  field: string,
  map: Readonly<Record<string, string>>,
  valueBytes: number = Limits.mapValueBytes,
): void {
  const entries = Object.entries(map);
  checkCount(field, entries.length, Limits.mapEntries);
  for (const [key, value] of entries) {
    checkText(`${field} key`, key, Limits.mapKeyBytes);
    checkText(`${field} value`, value, valueBytes);
  }
}

function checkTexts(field: string, texts: readonly string[], most: number, mostBytes: number): void {
  checkCount(field, texts.length, most);
  for (const text of texts) checkText(field, text, mostBytes);
}

function checkText(field: string, text: string, mostBytes: number): void {
  check(field, Buffer.byteLength(text), "bytes", mostBytes);
}

function checkCount(field: string, count: number, most: number): void {
  check(field, count, "entries", most);
}

function check(field: string, size: number, unit: "bytes" | "entries", limit: number): void {
  if (size > limit) {
    throw new NsmError("INVALID_ARGUMENT", "limit", `${field}: ${size} ${unit}, the limit is ${limit}`);
  }
}
