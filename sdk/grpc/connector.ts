/**
 * The TLS side of one client session, as credentials of a grpc-js channel.
 *
 * grpc-js connects, again when a connection breaks or its server ends it, and would send there what still waits; each
 * connection is given to us before HTTP/2 begins. The first one is the session: the server of another may be another, or show
 * another certificate, and what was made for the first does not fit it. (The credentials that grpc-js makes itself would leave
 * a socket open for ever that a silent server accepted, and hide why a server was refused.)
 */
import type { X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import { connect, createSecureContext } from "node:tls";
import type { SecureContext, TLSSocket } from "node:tls";
import { CallCredentials, ChannelCredentials } from "@grpc/grpc-js";
import type { experimental } from "@grpc/grpc-js";
import { NsmError, asNsmError } from "../errors.ts";
import type { X509Snapshot } from "../spiffe/source.ts";
import type { PeerProcess } from "./peer.ts";
import { readPeerProcess } from "./process.ts";
import { REFUSED, SESSION_OVER } from "./status.ts";
import { expectAnswers } from "./tcp.ts";
import { ALPN, secureContextOptions, verifyPeer } from "./tls.ts";
import type { Verify, VerifiedPeer } from "./tls.ts";

/** Who serves, known from the handshake on. */
export interface ServerIdentity {
  readonly id: string;
  /** Verified leaf. */
  readonly certificate: X509Certificate;
  /** As it came, leaf first. */
  readonly chain: VerifiedPeer["chain"];
  /** The listening process, on unix sockets; open while its connection is. */
  readonly process: PeerProcess | undefined;
}

export interface ConnectorOptions {
  readonly own: X509Snapshot;
  readonly verify: Verify;
  /** Ids that the server may have. */
  readonly expect: ((spiffeId: string) => boolean) | undefined;
  readonly isUnix: boolean;
  readonly now: () => number;
  /** For messages. */
  readonly url: string;
}

export class SessionCredentials extends ChannelCredentials {
  readonly #options: ConnectorOptions;
  readonly #context: SecureContext;
  readonly #sockets = new Set<Socket>();
  #server: ServerIdentity | undefined;
  #refusal: NsmError | undefined;
  #closed = false;

  constructor(options: ConnectorOptions) {
    super();
    this.#options = options;
    this.#context = contextOf(options.own);
  }

  /** Of the successful handshake. */
  get server(): ServerIdentity | undefined {
    return this.#server;
  }

  /** Why the last handshake failed on our side. */
  get refusal(): NsmError | undefined {
    return this.#refusal;
  }

  /** The connection of the session stands, be it that no new call may begin there. */
  get isConnected(): boolean {
    return [...this.#sockets].some(({ destroyed, readableEnded }) => !destroyed && !readableEnded);
  }

  /** Breaks every connection and refuses new ones. */
  destroy(): void {
    this.#closed = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Resolves when every connection is closed. */
  async closed(): Promise<void> {
    const sockets = [...this.#sockets];
    await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once("close", resolve))));
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(): experimental.SecureConnector {
    const noCallCredentials = CallCredentials.createEmpty();
    return {
      connect: async (raw) => ({ socket: await this.#connect(raw), secure: true }),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => noCallCredentials,
      destroy: () => undefined,
    };
  }

  async #connect(raw: Socket): Promise<TLSSocket> {
    this.#sockets.add(raw);
    raw.once("close", () => this.#sockets.delete(raw));
    // The TLS socket on top reports what matters; without a listener an error down here would end the process.
    raw.on("error", () => undefined);
    try {
      if (this.#closed) throw new NsmError("UNAVAILABLE", "session-closed", "the session is closed");
      this.#refuseAnother();
      const process = this.#options.isUnix ? readPeerProcess(raw) : undefined;
      if (!this.#options.isUnix) expectAnswers(raw);
      raw.once("close", () => process?.[Symbol.dispose]());
      const socket = await handshake(raw, this.#context);
      const { own, verify, now, expect, url } = this.#options;
      const { id, leaf: certificate, chain } = verifyPeer(socket, own, verify, now());
      if (expect && !expect(id)) throw refused(`${url}: the server is ${id}, which is not expected there`);
      this.#refuseAnother();
      this.#server = { id, certificate, chain, process };
      return socket;
    } catch (error) {
      raw.destroy();
      this.#refusal = asNsmError(error, "UNAVAILABLE", "handshake-failed", "TLS handshake");
      throw this.#refusal;
    }
  }

  #refuseAnother(): void {
    if (this.#server !== undefined) throw new NsmError("UNAVAILABLE", REFUSED, SESSION_OVER);
  }
}

export function refused(message: string): NsmError {
  return new NsmError("UNAVAILABLE", "peer-refused", message);
}

function handshake(raw: Socket, secureContext: SecureContext): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connect(
      { socket: raw, secureContext, ALPNProtocols: [ALPN], rejectUnauthorized: false },
      () => resolve(socket),
    );
    // Stays for the socket's life: after the handshake it is HTTP/2 that acts on errors.
    socket.on("error", reject);
    socket.once("close", () =>
      reject(new NsmError("UNAVAILABLE", "handshake-failed", "the server closed the connection")),
    );
  });
}

const contexts = new WeakMap<X509Snapshot["svid"], SecureContext>();

/** Reading key and chain costs more than a handshake needs to: once per SVID. */
function contextOf(own: X509Snapshot): SecureContext {
  let context = contexts.get(own.svid);
  if (context === undefined)
    contexts.set(own.svid, (context = createSecureContext(secureContextOptions(own))));
  return context;
}
