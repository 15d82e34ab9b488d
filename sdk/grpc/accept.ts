/**
 * From an accepted socket to a session with a known peer.
 *
 *     accepted --SO_PEERCRED--> handshaking --TLS, h2--> verified --SVID, authorize--> session
 *         |                        |  |                     |
 *         |                        |  +--TLS, other ALPN--> another protocol (`OtherProtocols`)
 *         +------------------------+------------------------+--> closed
 *
 * A tls.Server that listens nowhere does the handshakes, one for each SVID generation, so that `Peer.own` is exactly the
 * identity that this handshake showed. Tickets are off: a resumed session would skip the verification of the chain.
 */
import { constants } from "node:crypto";
import type { Socket } from "node:net";
import { createServer } from "node:tls";
import type { Server as TlsServer, TLSSocket } from "node:tls";
import type { Clock } from "../clock.ts";
import { NsmError, errnoOf } from "../errors.ts";
import type { Logger } from "../log.ts";
import { meters } from "../metrics/meters.ts";
import { parseSpiffeId } from "../spiffe/id.ts";
import type { X509Snapshot, X509Source } from "../spiffe/source.ts";
import { createWaitingRoom, holderOf } from "../waiting-room.ts";
import type { ServerLimits } from "./limits.ts";
import type { Peer } from "./peer.ts";
import { descriptorOf, readPeerProcess } from "./process.ts";
import type { OwnedProcess } from "./process.ts";
import { expectAnswers } from "./tcp.ts";
import { ALPN, secureContextOptions, verifyPeer } from "./tls.ts";
import type { Verify, VerifiedPeer } from "./tls.ts";

const HTTP = "http/1.1";

/** Says whether a verified peer may have a session or call a service; a false one gets PERMISSION_DENIED. */
export type Authorize<P = Peer> = (peer: P) => boolean;

/**
 * What may come in beside gRPC, told apart by ALPN (RFC 7301). Handshakes are bounded as those of gRPC are; from then on the
 * socket is the taker's, who bounds it in size and time. It is destroyed when the server closes.
 */
export interface OtherProtocols {
  /** ALPN `http/1.1`, or none at all: whoever that is. A certificate of the client, if it has one, is not looked at. */
  readonly https?: (socket: TLSSocket) => void;
  /** By ALPN name, for peers that are verified and authorized as those of gRPC are. */
  readonly verified?: ReadonlyMap<string, (peer: Peer, socket: TLSSocket) => void>;
}

export interface AcceptorOptions {
  readonly source: X509Source;
  readonly verify: Verify;
  readonly authorize: Authorize | undefined;
  /** Which ids of other trust domains may connect; none unless told. */
  readonly isNeighbour?: ((spiffeId: string) => boolean) | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: ServerLimits;
  readonly transport: Peer["transport"];
  readonly others?: OtherProtocols | undefined;
}

export interface Acceptor extends Disposable {
  /** Takes over an accepted socket of which nothing was read. */
  accept(raw: Socket): void;
}

interface HalfOpen {
  readonly raw: Socket;
  readonly process: OwnedProcess | undefined;
  readonly place: Disposable;
}

let lastSession = 0;

/** `onSession` gets each verified connection; its process descriptor is closed when the socket is. */
export function createAcceptor(
  options: AcceptorOptions,
  onSession: (peer: Peer, socket: TLSSocket, chain: VerifiedPeer["chain"]) => void,
): Acceptor {
  const { source, verify, authorize, isNeighbour, clock, log, limits, transport, others = {} } = options;
  const alpn = [ALPN, ...(others.verified?.keys() ?? []), ...(others.https === undefined ? [] : [HTTP])];
  /** By file descriptor, which the raw socket and the TLS socket on it have in common. */
  const halfOpen = new Map<number, HalfOpen>();
  /** Idlers, and those of whom there are many, make room for newcomers, so that a flood locks nobody out. */
  const room = createWaitingRoom(limits.maxHalfOpen, clock);
  let tls: { readonly generation: number; readonly server: TlsServer } | undefined;
  let closed = false;

  function accept(raw: Socket): void {
    raw.on("error", (err) => log.debug({ err }, "connection failed"));
    try {
      if (closed) throw new NsmError("UNAVAILABLE", "draining", "the server stops");
      const server = tlsServer();
      const fd = descriptorOf(raw);
      const process = transport === "unix" ? readPeerProcess(raw) : undefined;
      const leave = () => {
        if (halfOpen.get(fd)?.raw === raw) halfOpen.delete(fd);
      };
      const place = room.admit({
        holder: process === undefined ? holderOf(raw.remoteAddress) : `process ${process.pid}`,
        isSilent: () => raw.bytesRead === 0,
        dismiss() {
          leave();
          raw.destroy();
        },
      });
      if (place === undefined) {
        process?.[Symbol.dispose]();
        throw new NsmError("RESOURCE_EXHAUSTED", "too-many-half-open", "no room");
      }
      if (transport === "tcp") expectAnswers(raw);
      halfOpen.set(fd, { raw, process, place });
      raw.once("close", () => {
        leave();
        place[Symbol.dispose]();
        process?.[Symbol.dispose]();
      });
      server.emit("connection", raw);
    } catch (err) {
      log.debug({ err }, "connection refused");
      raw.destroy();
    }
  }

  function tlsServer(): TlsServer {
    const own = source.current();
    if (tls?.generation !== own.generation)
      tls = { generation: own.generation, server: createTlsServer(own, alpn, limits, log, handshakeDone) };
    return tls.server;
  }

  function handshakeDone(own: X509Snapshot, socket: TLSSocket): void {
    socket.on("error", (err) => log.debug({ err }, "connection failed"));
    let half: HalfOpen | undefined;
    try {
      const fd = descriptorOf(socket);
      half = halfOpen.get(fd);
      halfOpen.delete(fd);
      half?.place[Symbol.dispose]();
      if (half === undefined || closed) throw new NsmError("UNAVAILABLE", "draining", "the server stops");
      const protocol = socket.alpnProtocol;
      if (others.https !== undefined && (protocol === HTTP || typeof protocol !== "string")) {
        others.https(socket);
        return;
      }
      const other = others.verified?.get(String(protocol));
      const { id, leaf, chain } = verifyPeer(
        socket,
        own,
        verify,
        clock.now(),
        other === undefined ? ALPN : String(protocol),
      );
      refuseOtherDomain(id, own.svid.id, isNeighbour);
      const session = `conn-${++lastSession}`;
      const { process } = half;
      const remoteAddress = transport === "tcp" ? half.raw.remoteAddress : undefined;
      const peer: Peer = {
        session,
        spiffeId: id,
        certificate: leaf,
        own,
        transport,
        process,
        ...(remoteAddress !== undefined && { remoteAddress }),
      };
      if (authorize && !authorize(peer))
        throw new NsmError("PERMISSION_DENIED", "peer-refused", `${id} may not connect here`);
      meters.handshakes.inc({ side: "server", result: "ok" });
      (other ?? onSession)(peer, socket, chain);
    } catch (err) {
      meters.handshakes.inc({ side: "server", result: "failed" });
      log.warn({ err, pid: half?.process?.pid, uid: half?.process?.uid }, "session refused");
      socket.destroy();
    }
  }

  return {
    accept,
    [Symbol.dispose]() {
      closed = true;
      for (const { raw } of halfOpen.values()) raw.destroy();
      halfOpen.clear();
    },
  };
}

/** That a mesh trusts a domain to speak for itself opens none of its doors; throws PERMISSION_DENIED `other-domain`. */
function refuseOtherDomain(id: string, ownId: string, isNeighbour: AcceptorOptions["isNeighbour"]): void {
  const { trustDomain } = parseSpiffeId(id);
  if (trustDomain === parseSpiffeId(ownId).trustDomain || isNeighbour?.(id) === true) return;
  throw new NsmError(
    "PERMISSION_DENIED",
    "other-domain",
    `${id} is of the trust domain ${trustDomain}: other domains come in by this domain's proxy; link them (nsm link), or name them where they may come in (NSM_DOMAINS_PATH, NSM_DNS_DOMAINS)`,
  );
}

function createTlsServer(
  own: X509Snapshot,
  alpn: readonly string[],
  limits: ServerLimits,
  log: Logger,
  onSecure: (own: X509Snapshot, socket: TLSSocket) => void,
): TlsServer {
  const server = createServer({
    ...secureContextOptions(own),
    requestCert: true,
    rejectUnauthorized: false,
    ALPNProtocols: [...alpn],
    handshakeTimeout: limits.handshakeMs,
    secureOptions: constants.SSL_OP_NO_TICKET,
  });
  server.on("secureConnection", (socket) => onSecure(own, socket));
  server.on("tlsClientError", (err, socket) => {
    // Probes connect and say nothing, and so do we when we look who listens (`foreign.ts`): Node calls that a reset.
    if (errnoOf(err) === "ECONNRESET") log.debug("connection closed before the end of the handshake");
    else {
      meters.handshakes.inc({ side: "server", result: "failed" });
      log.debug({ err: handshakeFailed(err) }, "handshake failed");
    }
    socket.destroy();
  });
  return server;
}

/** OpenSSL's errors have a long text with a short reason in it. */
function handshakeFailed(error: Error): NsmError {
  const why = "reason" in error && typeof error.reason === "string" ? error.reason : error.message;
  return new NsmError("UNAUTHENTICATED", "handshake-failed", `TLS handshake: ${why}`, error);
}
