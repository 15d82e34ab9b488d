/** How the forwarder registers, so that the manager of its node finds it. */
import { create } from "@bufbuild/protobuf";
import { NetworkServiceEndpointSchema } from "../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { clientInfoOf } from "../sdk/client-info.ts";
import type { ForwarderConfig } from "./config.ts";

type Own = Pick<
  ForwarderConfig,
  "name" | "service" | "labels" | "listenOn" | "nodeName" | "podName" | "zoneName" | "clusterName"
>;

export function ownRecord(config: Own): NetworkServiceEndpoint {
  const labels = { ...Object.fromEntries(config.labels), ...Object.fromEntries(clientInfoOf(config)) };
  return create(NetworkServiceEndpointSchema, {
    name: config.name,
    networkServiceNames: [config.service],
    networkServiceLabels: { [config.service]: { labels } },
    url: config.listenOn,
  });
}
