/** Services and endpoints as people see them. Pure. */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { splitDomain } from "../sdk/domains/name.ts";
import { compare } from "./get-wires.ts";
import type { Column } from "./table.ts";

/** Of `nsm get endpoints -o json`. */
export interface EndpointRow {
  readonly name: string;
  readonly services: readonly string[];
  readonly node: string;
  /** Where the manager that was asked reaches it: the socket itself on its own node, else another manager. */
  readonly url: string;
  /** By service. */
  readonly labels: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** SPIFFE id that registered it. */
  readonly owner: string;
  /** RFC 3339; it is renewed before. */
  readonly expires: string | null;
}

export function endpointRows(endpoints: readonly NetworkServiceEndpoint[]): EndpointRow[] {
  return endpoints.map(endpointRow).toSorted((a, b) => compare(a.name, b.name));
}

function endpointRow(endpoint: NetworkServiceEndpoint): EndpointRow {
  const labels = Object.entries(endpoint.networkServiceLabels).map(([service, each]) => [
    service,
    each.labels,
  ]);
  const { expirationTime } = endpoint;
  return {
    name: endpoint.name,
    services: endpoint.networkServiceNames,
    node:
      Object.values(endpoint.networkServiceLabels).find((each) => each.labels["nodeName"])?.labels[
        "nodeName"
      ] ?? "",
    url: endpoint.url,
    labels: Object.fromEntries(labels),
    owner: endpoint.pathIds[0] ?? "",
    expires: expirationTime === undefined ? null : new Date(timestampMs(expirationTime)).toISOString(),
  };
}

export const endpointColumns: readonly Column<EndpointRow>[] = [
  { title: "ENDPOINT", value: ({ name }) => name },
  { title: "SERVICES", value: ({ services }) => services.join(",") },
  { title: "NODE", value: ({ node }) => node || "-" },
  { title: "URL", value: ({ url }) => url },
];

export const wideEndpointColumns: readonly Column<EndpointRow>[] = [
  ...endpointColumns,
  { title: "OWNER", value: ({ owner }) => owner || "-" },
  { title: "EXPIRES", value: ({ expires }) => expires ?? "never" },
  { title: "LABELS", value: ({ labels }) => Object.values(labels).map(labelText).join(" ") || "-" },
];

/** Of `nsm get services -o json`. */
export interface ServiceRow {
  readonly name: string;
  readonly payload: string;
  /** Endpoints that are registered for it now. */
  readonly endpoints: readonly string[];
  /** Rules of the service that choose among them; 0 means that any endpoint will do. */
  readonly matches: number;
  /** SPIFFE id that registered it. */
  readonly owner: string;
}

export function serviceRows(
  services: readonly NetworkService[],
  endpoints: readonly NetworkServiceEndpoint[],
): ServiceRow[] {
  return services
    .map(({ name, payload, matches, pathIds }) => ({
      name,
      payload,
      endpoints: endpoints
        .filter((endpoint) => endpoint.networkServiceNames.includes(name))
        .map((endpoint) => endpoint.name)
        .toSorted(compare),
      matches: matches.length,
      owner: pathIds[0] ?? "",
    }))
    .toSorted((a, b) => compare(a.name, b.name));
}

/** Of `nsm get services --all-domains -o json`: members of {@link ServiceRow} beside these. */
export interface DomainServiceRow extends ServiceRow {
  /** Empty for this one. */
  readonly domain: string;
  /** Why the domain did not answer; then there is no name, and it may have services. */
  readonly fault?: string;
}

/** `others`: named `service@domain`, or `@domain` with the reason why it did not answer as payload. */
export function domainServiceRows(
  own: readonly ServiceRow[],
  others: readonly NetworkService[],
): DomainServiceRow[] {
  const rows = others.map((service): DomainServiceRow => {
    const { target: name, domain } = splitDomain(service.name);
    const [row] = serviceRows([{ ...service, name }], []);
    if (row !== undefined && name !== "") return { ...row, domain };
    return { name: "", payload: "", endpoints: [], matches: 0, owner: "", domain, fault: service.payload };
  });
  return [
    ...own.map((row) => ({ ...row, domain: "" })),
    ...rows.toSorted((a, b) => compare(a.domain, b.domain) || compare(a.name, b.name)),
  ];
}

export const domainServiceColumns: readonly Column<DomainServiceRow>[] = [
  { title: "SERVICE", value: ({ name }) => name || "-" },
  { title: "DOMAIN", value: ({ domain }) => domain || "-" },
  { title: "PAYLOAD", value: ({ payload }) => payload || "-" },
  { title: "MATCHES", value: ({ matches, fault }) => (fault === undefined ? matchesText(matches) : "-") },
  { title: "REMARK", value: ({ fault }) => (fault === undefined ? "-" : `no answer: ${fault}`) },
];

function matchesText(matches: number): string {
  return matches === 0 ? "any" : String(matches);
}

export const serviceColumns: readonly Column<ServiceRow>[] = [
  { title: "SERVICE", value: ({ name }) => name },
  { title: "PAYLOAD", value: ({ payload }) => payload || "-" },
  { title: "ENDPOINTS", value: ({ endpoints }) => String(endpoints.length) },
  { title: "MATCHES", value: ({ matches }) => matchesText(matches) },
];

export const wideServiceColumns: readonly Column<ServiceRow>[] = [
  ...serviceColumns.slice(0, 2),
  { title: "ENDPOINTS", value: ({ endpoints }) => endpoints.join(",") || "none" },
  ...serviceColumns.slice(3),
  { title: "OWNER", value: ({ owner }) => owner || "-" },
];

export function labelText(labels: Readonly<Record<string, string>>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
}
