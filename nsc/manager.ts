/** The manager of this node as the client calls it. */
import type { Connection, ConnectionEvent, MonitorScopeSelector } from "../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";

export interface Manager {
  /** The answer is authorised by the client policies; see `authorizeClientPath`. */
  request(request: NetworkServiceRequest, signal: AbortSignal): Promise<Connection>;
  close(connection: Connection, signal: AbortSignal): Promise<void>;
  /** First the present state, then changes; ends with an error when the session breaks. */
  monitor(selector: MonitorScopeSelector, signal: AbortSignal): AsyncIterable<ConnectionEvent>;
}
