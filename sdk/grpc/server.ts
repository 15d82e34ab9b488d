/**
 * A gRPC server that knows who calls: mutual TLS with SVIDs on unix sockets and TCP alike, and the process on unix sockets.
 *
 * grpc-js never shows the socket that it accepted itself, so the sockets are accepted here (`accept.ts`) and given to it
 * when their peer is known. A handler's call then names its session by the `remoteAddress` that we put on the TLS socket.
 */
import type { TLSSocket } from "node:tls";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import type { ChannelOptions, ConnectionInjector } from "@grpc/grpc-js";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { meters } from "../metrics/meters.ts";
import type { X509Source } from "../spiffe/source.ts";
import { createAcceptor } from "./accept.ts";
import type { Acceptor, Authorize, OtherProtocols } from "./accept.ts";
import { formatAddress, parseAddress } from "./address.ts";
import type { CallInProgress } from "./caller.ts";
import { createDistrust } from "./distrust.ts";
import { addService } from "./handlers.ts";
import type { AddService, HandlerEnvironment } from "./handlers.ts";
import { Health, healthHandlers } from "./health.ts";
import { SERVER_LIMITS } from "./limits.ts";
import type { ServerLimits } from "./limits.ts";
import { openListener } from "./listener.ts";
import type { Listener } from "./listener.ts";
import type { Peer } from "./peer.ts";
import { createRenewals } from "./renewal.ts";
import type { Verify } from "./tls.ts";

/** How long unary calls may go on when the server is disposed of. */
const CLOSE_GRACE_MS = 1000;
/** How long a peer without calls has to hear of it; it goes by itself then, unless it is gone already. */
const FAREWELL_MS = 100;
/** From when a peer is not trusted any more to the end of its connection. */
const DISTRUSTED_GRACE_MS = 100;
/** TLS follows on each connection, so that anybody may connect; see socket(7), "permissions". */
const DEFAULT_SOCKET_MODE = 0o666;

export interface Listen {
  /** `unix:///path`, `tcp://host:port`, `tcp://:port` (every address); port 0 takes a free one. */
  readonly url: string;
  /** Mode of a unix socket's file; 0o666 unless told. */
  readonly socketMode?: number;
  /** Who may connect at all; everybody with a valid SVID unless told. */
  readonly authorize?: Authorize;
}

export interface ServerOptions {
  readonly source: X509Source;
  readonly verify: Verify;
  readonly listen: readonly (string | Listen)[];
  /** Which ids of other trust domains may connect; none unless told. */
  readonly isNeighbour?: (spiffeId: string) => boolean;
  readonly log: Logger;
  readonly clock: Clock;
  readonly limits?: Partial<ServerLimits>;
  /** What else is served at the same addresses. */
  readonly others?: OtherProtocols;
}

/** Disposing stops listening at once, ends streams, gives unary calls a second, and then closes every session. */
export interface GrpcServer extends AsyncDisposable {
  /** Where it listens, in the order of `listen`, with the ports that were really taken. */
  readonly addresses: readonly string[];
}

interface Session {
  readonly peer: Peer;
  readonly socket: TLSSocket;
  /** Of this session alone, so that it can be ended alone: grpc-js shows nobody its HTTP/2 sessions. */
  readonly injector: ConnectionInjector;
  /** False from when the bundles do not verify the peer any more; no call of it is taken then. */
  isTrusted: boolean;
}

/**
 * Starts a server with the services that `register` adds, and their health.
 *
 * Throws what `parseAddress` and `openListener` throw; then nothing listens. Each new SVID of the source is shown in the
 * handshakes after it; sessions that exist keep theirs, and get a GOAWAY in good time before it ends. A session whose peer the
 * newest bundles do not verify any more ends at once.
 */
export async function openServer(
  options: ServerOptions,
  register: (add: AddService) => void,
): Promise<GrpcServer> {
  const { source, verify, isNeighbour, log, clock } = options;
  const limits = { ...SERVER_LIMITS, ...options.limits };
  const sessions = new Map<string, Session>();
  const calls = new Set<CallInProgress<Peer>>();

  const server = new Server(channelOptions(limits));
  const peerOf = (name: string) => {
    const session = sessions.get(name);
    return session?.isTrusted === true ? session.peer : undefined;
  };
  const nameOf = ({ spiffeId }: Peer) => spiffeId;
  registerAll(server, register, { log, clock, limits, calls, peerOf, nameOf });
  const renewals = createRenewals(source, clock);
  const distrust = createDistrust({ source, verify, clock, log });

  const onSession = (peer: Peer, socket: TLSSocket, chain: readonly Uint8Array[]) => {
    const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
    // GOAWAY; calls and streams go on, until the session's greatest age if need be.
    const renewal = renewals.watch(peer.own, () => injector.destroy());
    const session: Session = { peer, socket, injector, isTrusted: true };
    sessions.set(peer.session, session);
    let ending: Disposable | undefined;
    const trust = distrust.watch({ id: peer.spiffeId, chain, bundles: peer.own.bundles }, (error) => {
      session.isTrusted = false;
      for (const call of calls) if (call.peer.session === peer.session) call.leave(error);
      // The calls are told why they end.
      ending = clock.timer(DISTRUSTED_GRACE_MS, () => socket.destroy());
    });
    meters.sessions.add({ side: "server" }, 1);
    socket.once("close", () => {
      meters.sessions.add({ side: "server" }, -1);
      sessions.delete(peer.session);
      renewal[Symbol.dispose]();
      trust[Symbol.dispose]();
      ending?.[Symbol.dispose]();
      injector.destroy();
    });
    // getPeer() of a call is the remote address, with the port if there is one.
    Object.defineProperty(socket, "remoteAddress", { value: peer.session });
    Object.defineProperty(socket, "remotePort", { value: undefined });
    injector.injectConnection(socket);
    endIfSilent(socket, limits.handshakeMs, clock);
  };

  const strangers = new Set<TLSSocket>();
  const others = tracked(options.others, strangers);
  const listeners: Listener[] = [];
  const acceptors: Acceptor[] = [];
  const stopListening = async () => {
    renewals[Symbol.dispose]();
    distrust[Symbol.dispose]();
    await Promise.all(listeners.map((listener) => listener[Symbol.asyncDispose]()));
    for (const acceptor of acceptors) acceptor[Symbol.dispose]();
  };
  try {
    for (const entry of options.listen) {
      const { url, socketMode = DEFAULT_SOCKET_MODE, authorize } = toListen(entry);
      const address = parseAddress(url);
      const transport = address.kind;
      const acceptor = createAcceptor(
        { source, verify, authorize, isNeighbour, clock, log, limits, transport, others },
        onSession,
      );
      acceptors.push(acceptor);
      listeners.push(await openListener(address, socketMode, (socket) => acceptor.accept(socket)));
    }
  } catch (error) {
    await stopListening();
    server.forceShutdown();
    throw error;
  }

  let closing: Promise<void> | undefined;
  return {
    addresses: listeners.map(({ address }) => formatAddress(address)),
    [Symbol.asyncDispose]: () => (closing ??= close()),
  };

  async function close(): Promise<void> {
    await stopListening();
    for (const socket of strangers) socket.destroy();
    for (const call of calls) if (call.isStream) call.leave(draining());
    // Longer than we wait: it would cancel the calls that are told below why they end.
    for (const { injector } of sessions.values()) injector.drain(2 * CLOSE_GRACE_MS);
    await allClosed(sessions, clock, FAREWELL_MS);
    const inUse = new Set([...calls].map(({ peer }) => peer.session));
    for (const { peer, socket } of sessions.values()) if (!inUse.has(peer.session)) socket.destroy();
    await allClosed(sessions, clock, CLOSE_GRACE_MS - FAREWELL_MS);
    for (const call of calls) call.leave(draining());
    for (const { socket } of sessions.values()) socket.destroy();
    await allClosed(sessions, clock, CLOSE_GRACE_MS);
    server.forceShutdown();
  }
}

/** Sockets of other protocols end with the server. */
function tracked(others: OtherProtocols | undefined, sockets: Set<TLSSocket>): OtherProtocols | undefined {
  if (others === undefined) return undefined;
  const track = (socket: TLSSocket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  };
  const { https, verified = new Map() } = others;
  return {
    ...(https !== undefined && {
      https(socket) {
        track(socket);
        https(socket);
      },
    }),
    verified: new Map(
      [...verified].map(([name, take]) => [
        name,
        (peer, socket) => {
          track(socket);
          take(peer, socket);
        },
      ]),
    ),
  };
}

/** A peer that has shown who it is and then begins no HTTP/2 has nothing to say; idle times count from its first frame only. */
function endIfSilent(socket: TLSSocket, afterMs: number, clock: Clock): void {
  const handshakeBytes = socket.bytesRead;
  const timer = clock.timer(afterMs, () => {
    if (socket.bytesRead === handshakeBytes) socket.destroy();
  });
  socket.once("close", () => timer[Symbol.dispose]());
}

function toListen(entry: string | Listen): Listen {
  return typeof entry === "string" ? { url: entry } : entry;
}

function registerAll(server: Server, register: (add: AddService) => void, env: HandlerEnvironment): void {
  const names = new Set<string>();
  register((service, handlers, authorize) => {
    names.add(service.typeName);
    addService(server, service, handlers, authorize, env);
  });
  addService(server, Health, healthHandlers(names), undefined, env);
}

function channelOptions(limits: ServerLimits): ChannelOptions {
  return {
    "grpc.enable_channelz": 0,
    "grpc.max_receive_message_length": limits.maxRequestBytes,
    "grpc.max_send_message_length": limits.maxResponseBytes,
    "grpc.max_concurrent_streams": limits.maxConcurrentStreams,
    "grpc-node.max_session_memory": limits.maxSessionMiB,
    "grpc.max_connection_idle_ms": limits.idleMs,
    "grpc.max_connection_age_ms": limits.maxAgeMs,
    "grpc.max_connection_age_grace_ms": limits.maxAgeGraceMs,
  };
}

function draining(): NsmError {
  return new NsmError("UNAVAILABLE", "draining", "the server stops; try again");
}

/** Resolves when every session has closed, or after the time. */
function allClosed(sessions: ReadonlyMap<string, Session>, clock: Clock, timeMs: number): Promise<void> {
  return new Promise((resolve) => {
    if (sessions.size === 0) return resolve();
    const timer = clock.timer(timeMs, resolve);
    for (const { socket } of sessions.values())
      socket.once("close", () => {
        if (sessions.size > 0) return;
        timer[Symbol.dispose]();
        resolve();
      });
  });
}
