/** Records that say the same, whoever brought them. Pure. */
import { create, equals } from "@bufbuild/protobuf";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";

/** Path may differ, and what only the registry's own domain decides. */
export function sameService(a: NetworkService, b: NetworkService): boolean {
  const ours = { pathIds: [], exportTo: [], importFrom: [], acceptEndpointsFrom: [] };
  return equals(NetworkServiceSchema, { ...a, ...ours }, { ...b, ...ours });
}

/** Path and expiry may differ. One that comes back under its name, or elsewhere, is another one. */
export function sameEndpoint(a: NetworkServiceEndpoint, b: NetworkServiceEndpoint): boolean {
  const lasting = (entry: NetworkServiceEndpoint) =>
    create(NetworkServiceEndpointSchema, {
      networkServiceNames: entry.networkServiceNames,
      networkServiceLabels: entry.networkServiceLabels,
      url: entry.url,
      ...(entry.initialRegistrationTime && { initialRegistrationTime: entry.initialRegistrationTime }),
    });
  return equals(NetworkServiceEndpointSchema, lasting(a), lasting(b));
}
