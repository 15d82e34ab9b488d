/** A user of the mesh at the command line: talks to a manager by its own SPIFFE identity, as any workload does. */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { MonitorConnection } from "../api/gen/connection_pb.js";
import type { ConnectionEvent, MonitorScopeSelector } from "../api/gen/connection_pb.js";
import { address, commonTable, duration, readConfig, text } from "../sdk/config.ts";
import type { ConfigOf, Environment, Table } from "../sdk/config.ts";
import { Defaults } from "../sdk/defaults.ts";
import { NsmError, messageOf } from "../sdk/errors.ts";
import type { Method } from "../sdk/grpc/service.ts";
import type { Target } from "../sdk/grpc/sessions.ts";
import { streamUntilReplaced } from "../sdk/grpc/until-replaced.ts";
import { tokenMetadata } from "../sdk/hops.ts";
import { idMatcher, idPatterns } from "../sdk/peer-ids.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import type { Registries } from "../sdk/registry/registry.ts";
import { inTime, listsInTime } from "./in-time.ts";
import { openOwnMesh } from "./own-mesh.ts";

/** What the commands that talk to a manager read of the environment. */
export const clientTable = {
  manager: address("NSM_CONNECT_TO", Defaults.managerSocket, "the manager to ask; --manager comes first"),
  managerIds: idPatterns("NSM_MANAGER_IDS", Defaults.managerIds, "who may answer as manager"),
  dialTimeoutMs: duration("NSM_DIAL_TIMEOUT", "3s", "longest wait for a session with the manager"),
  requestTimeoutMs: duration("NSM_REQUEST_TIMEOUT", "15s", "longest wait for an answer"),
  forwarderService: text(
    "NSM_FORWARDER_NETWORK_SERVICE_NAME",
    Defaults.forwarderService,
    "network service under which forwarders register",
  ),
  spiffeSocket: commonTable.spiffeSocket,
  maxTokenLifetimeMs: commonTable.maxTokenLifetimeMs,
} as const satisfies Table;

/** One manager, as this user may use it. */
export interface ManagerAccess {
  readonly url: string;
  /** The registry of the mesh, through the manager; endpoints of its node appear with the URLs that they have there. */
  readonly registries: Registries;
  /** The present state of the connections that this user may see, then changes; ends when the session is replaced. */
  monitor(selector: MonitorScopeSelector, signal: AbortSignal): AsyncIterable<ConnectionEvent>;
  /** Any other unary method of the manager. Throws the manager's error, UNAVAILABLE, DEADLINE_EXCEEDED. */
  call<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageShape<I>,
    signal: AbortSignal,
  ): Promise<MessageShape<O>>;
}

export interface MeshClient extends AsyncDisposable {
  /** Own SPIFFE id. */
  readonly spiffeId: string;
  /** The manager that the command line or the environment names. */
  readonly manager: ManagerAccess;
  /** Longest wait for an answer. */
  readonly requestTimeoutMs: number;
  /** Under which forwarders register. */
  readonly forwarderService: string;
  /** Another manager of the mesh. */
  at(url: string): ManagerAccess;
}

export interface MeshClientOptions {
  /** `--manager`; undefined takes the environment's. */
  readonly manager: string | undefined;
  readonly env: Environment;
  readonly signal: AbortSignal;
}

/**
 * Resolves when the manager has answered the handshake. Throws INVALID_ARGUMENT `bad-configuration`; UNAVAILABLE
 * `identity-unavailable` and PERMISSION_DENIED `identity-refused` without an identity; UNAVAILABLE when no manager answers.
 */
export async function openMeshClient(options: MeshClientOptions): Promise<MeshClient> {
  const { signal } = options;
  const given = options.manager === undefined ? {} : { NSM_CONNECT_TO: options.manager };
  if (options.manager !== undefined) checkManager(options.manager);
  // Variables of other commands are of no concern here: this one runs in the shells of people and in pods of any role.
  const config = readConfig(clientTable, { ...options.env, ...given }, () => undefined);
  await using stack = new AsyncDisposableStack();
  const mesh = stack.use(await openIdentity(config, signal));
  const { pool, minter, trustDomain } = mesh;
  const expect = idMatcher(config.managerIds, trustDomain);
  const metadata = tokenMetadata(minter);
  const at = (url: string): ManagerAccess => {
    const target: Target = { url, expect };
    const limit = { url, timeoutMs: config.requestTimeoutMs };
    return {
      url,
      registries: listsInTime(createRegistryClient({ ...mesh, target }), limit),
      monitor: (selector, stop) =>
        inTime({ ...limit, until: "first", signal: stop }, (within) =>
          streamUntilReplaced(pool, target, MonitorConnection.method.monitorConnections, selector, {
            signal: within,
            metadata,
          }),
        ),
      async call(method, request, stop) {
        const { timeoutMs } = limit;
        return (await pool.unary(target, method, request, { signal: stop, timeoutMs, metadata })).response;
      },
    };
  };
  const manager = at(config.manager);
  await pool
    .connect({ url: config.manager, expect }, { signal, timeoutMs: config.dialTimeoutMs })
    .catch(explainNoManager);
  const resources = stack.move();
  return {
    spiffeId: mesh.spiffeId,
    manager,
    requestTimeoutMs: config.requestTimeoutMs,
    forwarderService: config.forwarderService,
    at,
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** The option by its own name, not by that of the variable that it stands for. */
function checkManager(url: string): void {
  try {
    clientTable.manager.parse(url);
  } catch (error) {
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-configuration",
      `--manager ${JSON.stringify(url)}: ${messageOf(error)}`,
    );
  }
}

async function openIdentity(config: ConfigOf<typeof clientTable>, signal: AbortSignal) {
  try {
    return await openOwnMesh(config, signal);
  } catch (error) {
    if (!(error instanceof NsmError) || error.code === "CANCELLED") throw error;
    throw new NsmError(
      error.code,
      error.reason,
      `a manager answers nobody without a SPIFFE identity, and this process has none: ${error.message}`,
      error,
    );
  }
}

function explainNoManager(error: unknown): never {
  if (!(error instanceof NsmError) || error.code === "CANCELLED") throw error;
  throw new NsmError(
    error.code,
    error.reason,
    `no manager: ${error.message}. --manager (or NSM_CONNECT_TO) names another one`,
    error,
  );
}
