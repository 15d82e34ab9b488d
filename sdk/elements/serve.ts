/** A chain and a monitor store as gRPC handlers. */
import { create } from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";
import type { MonitorConnection } from "../../api/gen/connection_pb.js";
import type { NetworkService as NetworkServiceDescriptor } from "../../api/gen/networkservice_pb.js";
import type { CallContext, NetworkService } from "../chain.ts";
import type { Caller } from "../grpc/caller.ts";
import type { Handlers } from "../grpc/handlers.ts";
import { checkSelectorLimits } from "../limits.ts";
import { countCodes } from "../metrics/codes.ts";
import { meters } from "../metrics/meters.ts";
import { readTokenMetadata } from "../token.ts";
import { OPERATOR, RESELECT, UNDERSTANDS } from "./monitor.ts";
import type { MonitorStore, Viewer } from "./monitor.ts";

export function networkServiceHandlers(service: NetworkService): Handlers<typeof NetworkServiceDescriptor> {
  return {
    request: (request, caller) => counted("request", () => service.request(request, contextOf(caller))),
    async close(connection, caller) {
      await counted("close", () => service.close(connection, contextOf(caller)));
      return create(EmptySchema);
    },
  };
}

function counted<T>(operation: string, call: () => Promise<T>): Promise<T> {
  return countCodes((code) => meters.requests.inc({ operation, code }), call);
}

/** True for SPIFFE ids that see the connections of everybody. */
export type IsOperator = (spiffeId: string) => boolean;

/** Each caller is shown its own connections only, unless it is an operator. */
export function monitorHandlers(
  store: MonitorStore,
  isOperator: IsOperator = () => false,
): Handlers<typeof MonitorConnection> {
  return {
    monitorConnections(selector, caller) {
      checkSelectorLimits(selector);
      const reselects = caller.metadata.get(UNDERSTANDS).includes(RESELECT);
      const { signal, peer } = caller;
      return store.subscribe(selector, viewerOf(caller, isOperator), signal, reselects, peer.spiffeId);
    },
  };
}

export function viewerOf({ peer }: Pick<Caller, "peer">, isOperator: IsOperator): Viewer {
  return isOperator(peer.spiffeId) ? OPERATOR : peer.spiffeId;
}

function contextOf(caller: Caller): CallContext {
  return {
    signal: caller.signal,
    deadlineMs: caller.deadlineMs,
    peer: caller.peer,
    callerToken: readTokenMetadata(caller.metadata),
  };
}
