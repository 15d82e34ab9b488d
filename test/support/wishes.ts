/** What hand-made workloads ask for, and what forgers make of the answers of others. */
import { create } from "@bufbuild/protobuf";
import { PathSegmentSchema } from "../../api/gen/connection_pb.js";
import type { Connection, PathSegment } from "../../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import { copyOf } from "./workload.ts";
import type { Workload } from "./workload.ts";

export interface Wish {
  readonly service: string;
  /** Of path segment 0; default `client`. */
  readonly name?: string;
  /** Default `client-0`. */
  readonly id?: string;
  /** Default nsm-1. */
  readonly interfaceName?: string;
}

/** A first Request for a wire to the workload's own namespace. */
export function wishFor(workload: Pick<Workload, "netnsUrl">, wish: Wish): NetworkServiceRequest {
  const { service, name = "client", id = "client-0", interfaceName = "nsm-1" } = wish;
  return create(NetworkServiceRequestSchema, {
    connection: {
      id,
      networkService: service,
      context: { ipContext: {} },
      path: { pathSegments: [{ name, id }] },
    },
    mechanismPreferences: [
      { cls: "LOCAL", type: "KERNEL", parameters: { name: interfaceName, inodeURL: workload.netnsUrl } },
    ],
  });
}

/** Its refresh. */
export function refreshOf(connection: Connection): NetworkServiceRequest {
  return create(NetworkServiceRequestSchema, { connection: copyOf(connection) });
}

/** A connection with another path: these segments, own position `index`. */
export function withPath(
  connection: Connection,
  segments: readonly Pick<PathSegment, "name" | "id">[],
  index = 0,
): Connection {
  const copy = copyOf(connection);
  if (copy.path === undefined) throw new Error("the connection has no path");
  copy.path.index = index;
  copy.path.pathSegments = segments.map((segment) => create(PathSegmentSchema, segment));
  copy.id = segments[index]?.id ?? "";
  return copy;
}

export function segmentsOf({ path }: Connection): readonly PathSegment[] {
  return path?.pathSegments ?? [];
}

/** Text of the `i`th address of a connection's end, without length. */
export function addressOf({ context }: Connection, end: "src" | "dst", i = 0): string {
  const { srcIpAddrs = [], dstIpAddrs = [] } = context?.ipContext ?? {};
  return (end === "src" ? srcIpAddrs : dstIpAddrs)[i]?.split("/")[0] ?? "";
}
