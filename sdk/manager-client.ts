/** The manager of this node as a client of it calls it: nsc, and endpoints that are clients themselves. */
import { create } from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";
import { MonitorConnection } from "../api/gen/connection_pb.js";
import type { Connection, ConnectionEvent, MonitorScopeSelector } from "../api/gen/connection_pb.js";
import { NetworkService } from "../api/gen/networkservice_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";
import type { Clock } from "./clock.ts";
import { RESELECT, UNDERSTANDS } from "./elements/monitor.ts";
import { requestOnce } from "./elements/unwanted-answer.ts";
import type { Hearing } from "./elements/unwanted-answer.ts";
import type { SessionInfo } from "./grpc/session.ts";
import type { SessionPool, Target } from "./grpc/sessions.ts";
import { streamUntilReplaced } from "./grpc/until-replaced.ts";
import { tokenMetadata } from "./hops.ts";
import { countCodes } from "./metrics/codes.ts";
import { meters } from "./metrics/meters.ts";
import { idMatcher } from "./peer-ids.ts";
import { authorizeClientPath } from "./policies.ts";
import type { TokenMinter } from "./token.ts";

/** Less than a daemon may take to stop; a manager that got the Close goes on with it when its caller has left. */
const CLOSE_TIMEOUT_MS = 3500;

/** Where it listens, and who may answer there. */
export function managerTarget(
  { connectTo, managerIds }: { readonly connectTo: string; readonly managerIds: readonly string[] },
  { trustDomain }: { readonly trustDomain: string },
): Target {
  return { url: connectTo, expect: idMatcher(managerIds, trustDomain) };
}

export interface Manager {
  /** The answer is authorised by the client policies; see `authorizeClientPath`. */
  request(request: NetworkServiceRequest, signal: AbortSignal): Promise<Connection>;
  close(connection: Connection, signal: AbortSignal): Promise<void>;
  /** First the present state, then changes; ends when the session is replaced, with an error when it breaks. */
  monitor(selector: MonitorScopeSelector, signal: AbortSignal): AsyncIterable<ConnectionEvent>;
}

export interface ManagerOptions {
  readonly pool: SessionPool;
  readonly target: Target;
  readonly minter: TokenMinter;
  readonly clock: Clock;
  /** For one Request; a Close has 3.5 s at most. */
  readonly requestTimeoutMs: number;
}

export function createManager(options: ManagerOptions): Manager {
  const { pool, target, minter, clock, requestTimeoutMs } = options;
  const token = tokenMetadata(minter);
  const close = async (connection: Connection, signal: AbortSignal) => {
    await counted("close", () =>
      pool.unary(target, NetworkService.method.close, connection, {
        signal,
        timeoutMs: Math.min(CLOSE_TIMEOUT_MS, requestTimeoutMs),
        metadata: token,
      }),
    );
  };
  const giveBack = (answer: Connection) => close(answer, AbortSignal.timeout(requestTimeoutMs));
  return {
    async request(request, signal) {
      let session: SessionInfo | undefined;
      const ask = async ({ wanted, ...hearing }: Hearing) => {
        const metadata = (info: SessionInfo) => {
          wanted.throwIfAborted();
          session = info;
          return token(info);
        };
        const context = { ...hearing, hearsLate: true, metadata };
        return (await pool.unary(target, NetworkService.method.request, request, context)).response;
      };
      const deadlineMs = clock.now() + requestTimeoutMs;
      const response = await counted("request", () =>
        requestOnce(request, ask, giveBack, { signal, deadlineMs }),
      );
      const tokens = response.path?.pathSegments.map((segment) => segment.token) ?? [];
      try {
        authorizeClientPath(tokens, response.path?.index ?? 0, session?.peerCertificate, clock.now());
      } catch (error) {
        const isNew = (request.connection?.path?.pathSegments.length ?? 0) <= 1;
        if (isNew) await giveBack(response).catch(() => create(EmptySchema));
        throw error;
      }
      return response;
    },
    close,
    monitor: (selector, signal) =>
      streamUntilReplaced(pool, target, MonitorConnection.method.monitorConnections, selector, {
        signal,
        metadata: (session) => ({ ...token(session), [UNDERSTANDS]: RESELECT }),
      }),
  };
}

function counted<T>(operation: string, call: () => Promise<T>): Promise<T> {
  return countCodes((code) => meters.sentRequests.inc({ operation, code }), call);
}
