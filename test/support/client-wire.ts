/** A client's wire and what a manager answers it, for tests: a path of two hops and leases of 100 s. */
import { clone, create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { ConnectionSchema, PathSchema, State } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import type { Wish } from "../../nsc/request.ts";

export const WISH: Wish = {
  id: "client-0",
  name: "client",
  networkService: "service",
  labels: { app: "test" },
  interfaceName: "nsm-1",
  netnsUrl: "inode://4/4026531840",
};

export function answered(request: NetworkServiceRequest, nowMs: number, endpoint = "nse-1"): Connection {
  const connection = clone(ConnectionSchema, request.connection ?? create(ConnectionSchema));
  connection.state = State.UP;
  connection.networkServiceEndpointName = endpoint;
  connection.path = create(PathSchema, {
    pathSegments: [
      { name: "client", id: "client-0", expires: timestampFromMs(Math.floor(nowMs) + 100_000) },
      { name: "manager", id: "m", expires: timestampFromMs(Math.floor(nowMs) + 200_000) },
    ],
  });
  return connection;
}
