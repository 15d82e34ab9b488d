/** Records that say the same, whoever brought them. Pure. */
import { create, equals } from "@bufbuild/protobuf";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";

export function sameService(a: NetworkService, b: NetworkService): boolean {
  return equals(NetworkServiceSchema, { ...a, pathIds: [] }, { ...b, pathIds: [] });
}

/** Times, path and URL may differ. */
export function sameEndpoint(a: NetworkServiceEndpoint, b: NetworkServiceEndpoint): boolean {
  const lasting = (entry: NetworkServiceEndpoint) =>
    create(NetworkServiceEndpointSchema, {
      networkServiceNames: entry.networkServiceNames,
      networkServiceLabels: entry.networkServiceLabels,
    });
  return equals(NetworkServiceEndpointSchema, lasting(a), lasting(b));
}
