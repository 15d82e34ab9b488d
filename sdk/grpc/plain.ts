/**
 * gRPC without TLS over a unix socket, for the SPIFFE Workload API and what stands beside it: its callers have no identity yet, and the server knows
 * them by what the kernel says of their process (SPIFFE standard "Workload Endpoint", §3).
 */
import type { Socket } from "node:net";
import type { DescService } from "@bufbuild/protobuf";
import { Client, Server, ServerCredentials, credentials } from "@grpc/grpc-js";
import type { ConnectionInjector } from "@grpc/grpc-js";
import { systemClock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { openPidfd, peerCredentials } from "../native.ts";
import { formatAddress, grpcTarget } from "./address.ts";
import type { Address } from "./address.ts";
import { Calls } from "./calls.ts";
import { addService } from "./handlers.ts";
import type { HandlerEnvironment, Handlers } from "./handlers.ts";
import { SERVER_LIMITS } from "./limits.ts";
import { openListener } from "./listener.ts";
import type { PeerProcess } from "./peer.ts";
import { descriptorOf, ownProcess } from "./process.ts";
import type { OwnedProcess } from "./process.ts";
import type { TypedService } from "./service.ts";

/** Requests and answers are small: an SVID with its bundles is below 16 KiB. */
const MAX_MESSAGE_BYTES = 1024 * 1024;
const MAX_STREAMS_PER_CONNECTION = 100;
const MAX_CONNECTIONS = 4096;
/** A connection without calls is closed after this. */
const IDLE_MS = 60_000;
/** So that one process cannot take all connections. */
const MAX_CONNECTIONS_PER_PROCESS = 64;

export interface PlainServerOptions {
  /** Absolute path of the socket; see `openListener` for what is refused. */
  readonly path: string;
  /** Permissions of the socket. */
  readonly mode: number;
  readonly log: Logger;
}

/** Adds a service whose callers are processes. */
export type AddPlainService = <S extends TypedService>(
  service: DescService & S,
  handlers: Handlers<S, PeerProcess>,
) => void;

/**
 * Serves the services that `register` adds when it resolves. Disposing cancels the calls that run and removes the socket. Throws as
 * `openListener`.
 */
export async function openPlainServer(
  options: PlainServerOptions,
  register: (add: AddPlainService) => void,
): Promise<AsyncDisposable> {
  const { log } = options;
  await using stack = new AsyncDisposableStack();
  const connections = new Map<string, PeerProcess>();
  const grpc = new Server({
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_concurrent_streams": MAX_STREAMS_PER_CONNECTION,
    "grpc.max_connection_idle_ms": IDLE_MS,
  });
  stack.defer(() => grpc.forceShutdown());
  const environment: HandlerEnvironment<PeerProcess> = {
    log,
    clock: systemClock,
    limits: SERVER_LIMITS,
    peerOf: (connection) => connections.get(connection),
    nameOf: ({ pid }) => `process ${pid}`,
    calls: new Set(),
  };
  register((service, handlers) => addService(grpc, service, handlers, undefined, environment));
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure());
  stack.use(
    await openListener({ kind: "unix", path: options.path }, options.mode, (socket) =>
      accept(socket, connections, injector, log),
    ),
  );
  return stack.move();
}

let nextConnection = 1;

function accept(
  socket: Socket,
  connections: Map<string, PeerProcess>,
  injector: ConnectionInjector,
  log: Logger,
): void {
  try {
    const caller = callerBehind(socket);
    const key = `conn-${nextConnection++}`;
    socket.once("close", () => {
      connections.delete(key);
      caller[Symbol.dispose]();
    });
    socket.on("error", (err) => log.debug({ err, peer: caller.pid }, "connection failed"));
    const ofProcess = [...connections.values()].filter(({ pid }) => pid === caller.pid).length;
    if (connections.size >= MAX_CONNECTIONS || ofProcess >= MAX_CONNECTIONS_PER_PROCESS) {
      log.warn({ peer: caller.pid }, "too many connections, the newest is closed");
      socket.destroy();
      return;
    }
    connections.set(key, caller);
    // The key under which calls of this connection find their caller again: getPeer() shows remoteAddress.
    Object.defineProperty(socket, "remoteAddress", { value: key });
    injector.injectConnection(socket);
  } catch (err) {
    log.warn({ err }, "connection refused");
    socket.destroy();
  }
}

/**
 * Kernels before 6.5 have no SO_PEERPIDFD; there the pidfd is opened by pid at once, so that a pid that is given away again deceives
 * at most between connect(2) and now.
 */
function callerBehind(socket: Socket): OwnedProcess {
  const credentials = peerCredentials(descriptorOf(socket));
  const pidfd = credentials.pidfd ?? openPidfd(credentials.pid);
  if (pidfd === undefined)
    throw new NsmError("UNAVAILABLE", "peer-gone", `process ${credentials.pid} ended before it was accepted`);
  return ownProcess({ ...credentials, pidfd });
}

export interface PlainClient extends Disposable {
  /** They throw `NsmError` with the status of the answer; a server that is not there is UNAVAILABLE. */
  readonly calls: Calls;
}

/** A client of its own channel; it connects with the first call. */
export function createPlainClient(address: Address): PlainClient {
  const client = new Client(grpcTarget(address), credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.enable_http_proxy": 0,
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.service_config_disable_resolution": 1,
  });
  return {
    calls: new Calls(client, formatAddress(address), () => undefined),
    [Symbol.dispose]: () => client.close(),
  };
}
