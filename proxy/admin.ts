/** Where operators reach the proxy: a listener of its own, for their ids alone. */
import { openServer } from "../sdk/grpc/server.ts";
import type { GrpcServer, ServerOptions } from "../sdk/grpc/server.ts";
import type { AddService } from "../sdk/grpc/handlers.ts";
import type { Logger } from "../sdk/log.ts";
import type { Mesh } from "../sdk/mesh.ts";
import { idMatcher } from "../sdk/peer-ids.ts";
import type { AdminConfig } from "./config.ts";

/** Throws what `openServer` throws. */
export async function openAdmin(
  { adminListenOn, operatorIds }: AdminConfig,
  mesh: Mesh,
  log: Logger,
  register: (add: AddService) => void,
): Promise<GrpcServer> {
  const isOperator = idMatcher(operatorIds, mesh.trustDomain);
  const listen: ServerOptions["listen"] = adminListenOn.map((url) => ({
    url,
    authorize: ({ spiffeId }) => isOperator(spiffeId),
  }));
  const server = await openServer({ ...mesh, log, listen }, register);
  log.info({ addresses: server.addresses }, "proxy answers operators");
  return server;
}
