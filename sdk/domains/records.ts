/** Records of registries with and without a domain in their names (docs/protocol.md, "Domains"). Pure. */
import { clone } from "@bufbuild/protobuf";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import { hasDomain, joinDomain, splitDomain } from "./name.ts";

/** How a kind of record bears domains. */
export interface DomainKind<T> {
  /** Of the record, or else of the first of its services that has one; undefined for one of this domain. */
  domainOf(entry: T): string | undefined;
  /** As its own domain knows it. */
  strip(entry: T): T;
  /** As others know it: what `strip` took off; names that already have a domain keep it. */
  join(entry: T, domain: string): T;
}

export const serviceKind: DomainKind<NetworkService> = {
  domainOf: ({ name }) => (hasDomain(name) ? splitDomain(name).domain : undefined),
  strip: (service) => renamed(service, (name) => splitDomain(name).target),
  join: (service, domain) => renamed(service, (name) => joined(name, domain)),
};

export const endpointKind: DomainKind<NetworkServiceEndpoint> = {
  domainOf({ name, networkServiceNames }) {
    const named = [name, ...networkServiceNames].find(hasDomain);
    return named === undefined ? undefined : splitDomain(named).domain;
  },
  strip: (endpoint) => renamedEndpoint(endpoint, (name) => splitDomain(name).target),
  join: (endpoint, domain) => renamedEndpoint(endpoint, (name) => joined(name, domain)),
};

function joined(name: string, domain: string): string {
  return name === "" || hasDomain(name) ? name : joinDomain(name, domain);
}

function renamed(service: NetworkService, rename: (name: string) => string): NetworkService {
  const copy = clone(NetworkServiceSchema, service);
  copy.name = rename(copy.name);
  return copy;
}

function renamedEndpoint(
  endpoint: NetworkServiceEndpoint,
  rename: (name: string) => string,
): NetworkServiceEndpoint {
  const copy = clone(NetworkServiceEndpointSchema, endpoint);
  copy.name = rename(copy.name);
  copy.networkServiceNames = copy.networkServiceNames.map(rename);
  copy.networkServiceLabels = Object.fromEntries(
    Object.entries(copy.networkServiceLabels).map(([service, labels]) => [rename(service), labels]),
  );
  return copy;
}
