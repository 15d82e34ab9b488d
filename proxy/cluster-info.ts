/** Labels by which others know this cluster: `clusterName` and what else the file says (docs/protocol.md, "Services of several domains"). */
import { create } from "@bufbuild/protobuf";
import * as z from "zod";
import { NetworkServiceLabelsSchema } from "../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import type { Element } from "../sdk/chain.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import { Limits } from "../sdk/limits.ts";
import { labelsFor } from "../sdk/match.ts";
import type { Registry } from "../sdk/registry/registry.ts";
import { parseYamlAs } from "../sdk/yaml.ts";
import type { WithSide } from "./side.ts";

const File = z
  .record(z.string().min(1).max(Limits.mapKeyBytes), z.coerce.string().max(Limits.mapValueBytes))
  .nullable();

export type ClusterInfo = Readonly<Record<string, string>>;

/** `clusterName: east`, and other labels, one a line. Throws INVALID_ARGUMENT `bad-yaml`. */
export function parseClusterInfo(text: string): ClusterInfo {
  return parseYamlAs(text, File) ?? {};
}

/** A client of this cluster is known as one in other domains; the answer has its labels as they were. */
export function clusterInfo(info: () => ClusterInfo): Element<WithSide, WithSide> {
  return (next) => ({
    async request(request, ctx) {
      const connection = connectionOf(request);
      if (ctx.domain === undefined) return await next.request(request, ctx);
      const labels = { ...connection.labels };
      Object.assign(connection.labels, info());
      const response = await next.request(request, ctx);
      response.labels = labels;
      return response;
    },
    close: (connection, ctx) => next.close(connection, ctx),
  });
}

/** An endpoint of this cluster that registers in another domain is known as one there, for each of its services. */
export function registerWith(
  elsewhere: Registry<NetworkServiceEndpoint>,
  info: () => ClusterInfo,
): Registry<NetworkServiceEndpoint> {
  return {
    ...elsewhere,
    async register(endpoint, ctx) {
      const more = Object.entries(info());
      if (more.length > 0)
        for (const service of endpoint.networkServiceNames)
          endpoint.networkServiceLabels[service] = create(NetworkServiceLabelsSchema, {
            labels: { ...labelsFor(endpoint, service), ...Object.fromEntries(more) },
          });
      return await elsewhere.register(endpoint, ctx);
    },
  };
}
