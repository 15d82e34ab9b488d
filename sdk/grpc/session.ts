/**
 * One session of the calling side: one certificate of ours, one peer, one grpc-js channel.
 *
 *     connecting --> ready --> leaving --> closed
 *          |            |                    ^
 *          +------------+--------------------+
 *
 * `leaving` takes no new calls and lets those in progress end, for a while. A session leaves when it is replaced by one with
 * a newer SVID, when its connection breaks, and when the server sends GOAWAY; its streams are told when there is a successor. It never
 * becomes ready again. A server that is not trusted any more closes it at once.
 */
import type { X509Certificate } from "node:crypto";
import { Client, connectivityState } from "@grpc/grpc-js";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import type { X509Snapshot } from "../spiffe/source.ts";
import { formatAddress, grpcTarget } from "./address.ts";
import type { Address } from "./address.ts";
import { Calls } from "./calls.ts";
import { SessionCredentials } from "./connector.ts";
import type { ServerIdentity } from "./connector.ts";
import type { Distrust } from "./distrust.ts";
import type { ClientLimits } from "./limits.ts";
import type { PeerProcess } from "./peer.ts";
import { connectFault } from "./status.ts";
import type { Verify } from "./tls.ts";

/** What a call needs to know of its session before it sends anything. */
export interface SessionInfo {
  /** SPIFFE id of the server. */
  readonly peerId: string;
  /** Its verified leaf. */
  readonly peerCertificate: X509Certificate;
  /** The identity that this session shows: tokens for the peer are signed with its key. */
  readonly own: X509Snapshot;
  /** The listening process, on unix sockets. */
  readonly process: PeerProcess | undefined;
}

export interface SessionOptions {
  readonly address: Address;
  readonly own: X509Snapshot;
  readonly expect: ((spiffeId: string) => boolean) | undefined;
  readonly verify: Verify;
  readonly clock: Clock;
  readonly limits: ClientLimits;
  readonly distrust: Distrust;
  /**
   * Called once, when the session takes no calls any more; `isConnected`: what it has goes on, as after a GOAWAY. Streams are told to move
   * when the promise is settled, at once without one.
   */
  readonly onLeave: (isConnected: boolean) => Promise<unknown> | undefined;
  /** Called once, when everything is ended; its sockets may still be closing. */
  readonly onClose: () => void;
}

type State =
  | { readonly kind: "connecting" }
  | { readonly kind: "ready"; readonly info: SessionInfo }
  | { readonly kind: "leaving" }
  | { readonly kind: "closed" };

/** Since its last call, for a session that is worth a successor before anybody asks for one. */
const IN_USE_MS = 10_000;
/** Where sessions live for less, the successor would be over when it is needed. */
const LEAST_LIFE_MS = 500;

export class Session {
  readonly own: X509Snapshot;
  /** Rejects with UNAVAILABLE and the reason why there is no session. */
  readonly ready: Promise<SessionInfo>;
  readonly #options: SessionOptions;
  readonly #url: string;
  readonly #credentials: SessionCredentials;
  readonly #client: Client;
  readonly #calls: Calls;
  #state: State = { kind: "connecting" };
  #timer: Disposable;
  #trust: Disposable | undefined;
  /** Monotonic: end of the last call, and since when there is a session. */
  #lastCallMs = -Infinity;
  #readyMs = Infinity;
  #settleReady: (outcome: SessionInfo | NsmError) => void = () => undefined;

  /** Starts to connect. */
  constructor(options: SessionOptions) {
    const { address, own, expect, verify, clock, limits } = options;
    this.own = own;
    this.#options = options;
    this.#url = formatAddress(address);
    this.#credentials = new SessionCredentials({
      own,
      verify,
      expect,
      isUnix: address.kind === "unix",
      now: () => clock.now(),
      url: this.#url,
    });
    this.#client = new Client(grpcTarget(address), this.#credentials, channelOptions(limits));
    this.#calls = new Calls(this.#client, this.#url, () => this.#callDone());
    this.ready = new Promise((resolve, reject) => {
      this.#settleReady = (outcome) => (outcome instanceof NsmError ? reject(outcome) : resolve(outcome));
    });
    // Whoever waits gets the error; a session that nobody waits for may fail silently.
    this.ready.catch(() => undefined);
    this.#timer = this.#connectTimer(limits.connectMs);
    this.#watch();
  }

  /** Defined while calls can be made at once. */
  get info(): SessionInfo | undefined {
    return this.#state.kind === "ready" ? this.#state.info : undefined;
  }

  /** Neither leaving nor closed. */
  get isOpen(): boolean {
    return this.#state.kind === "connecting" || this.#state.kind === "ready";
  }

  /** Has calls, or had one a moment ago, and has lived for longer than that: whoever used it will need another one. */
  get isMissed(): boolean {
    const nowMs = this.#options.clock.monotonic();
    const isInUse = this.#calls.size > 0 || nowMs - this.#lastCallMs < IN_USE_MS;
    return isInUse && nowMs - this.#readyMs > LEAST_LIFE_MS;
  }

  /** Fails unless it is ready within that time from now on. */
  hurry(withinMs: number): void {
    if (this.#state.kind !== "connecting") return;
    this.#timer[Symbol.dispose]();
    this.#timer = this.#connectTimer(withinMs);
  }

  /** To be used only while `info` is defined. */
  get calls(): Calls {
    return this.#calls;
  }

  /** No new calls; those in progress have `drainMs` to end, streams are told to move. */
  leave(): void {
    if (!this.isOpen) return;
    if (this.#state.kind === "connecting") {
      this.#fail(new NsmError("UNAVAILABLE", "session-replaced", `${this.#url}: the session was replaced`));
      return;
    }
    const { clock, limits, onLeave } = this.#options;
    this.#state = { kind: "leaving" };
    this.#timer[Symbol.dispose]();
    this.#timer = clock.timer(limits.drainMs, () => this.close());
    const successor = onLeave(this.#credentials.isConnected);
    const announce = () => this.#calls.announceReplacement();
    if (successor === undefined) announce();
    else void successor.then(announce, announce);
    if (this.#calls.size === 0) this.close();
  }

  /** Ends everything at once; calls in progress fail with UNAVAILABLE, `session-closed` unless told. */
  close(error = new NsmError("UNAVAILABLE", "session-closed", `${this.#url}: the session was closed`)): void {
    if (this.#state.kind === "closed") return;
    const wasOpen = this.isOpen;
    this.#state = { kind: "closed" };
    this.#timer[Symbol.dispose]();
    this.#trust?.[Symbol.dispose]();
    this.#settleReady(error);
    if (wasOpen) void this.#options.onLeave(false);
    this.#calls.endAll(error);
    this.#client.close();
    this.#credentials.destroy();
    this.#options.onClose();
  }

  /** Resolves when its sockets are gone, after `close`. */
  closed(): Promise<void> {
    return this.#credentials.closed();
  }

  /** Follows the channel's state to ready, and away from it. */
  #watch(): void {
    if (this.#state.kind === "closed") return;
    const channel = this.#client.getChannel();
    const isConnecting = this.#state.kind === "connecting";
    const state = channel.getConnectivityState(isConnecting);
    if (isConnecting && state === connectivityState.TRANSIENT_FAILURE) {
      this.#explain();
      return;
    }
    if (isConnecting && state === connectivityState.READY) {
      this.#becomeReady(this.#credentials.server);
      if (this.#isClosed()) return; // a closed channel throws when it is watched
    } else if (!isConnecting && state !== connectivityState.READY) {
      this.leave();
      return;
    }
    channel.watchConnectivityState(state, Infinity, () => this.#watch());
  }

  #becomeReady(server: ServerIdentity | undefined): void {
    if (server === undefined) {
      this.#fail(new NsmError("INTERNAL", "no-peer", `${this.#url}: ready without a handshake`));
      return;
    }
    const { id: peerId, certificate: peerCertificate, chain, process } = server;
    const info = { peerId, peerCertificate, own: this.own, process };
    this.#state = { kind: "ready", info };
    this.#timer[Symbol.dispose]();
    this.#readyMs = this.#options.clock.monotonic();
    this.#watchIdle(this.#options.limits.idleMs);
    // Bundles may have changed since the handshake began: then this closes at once.
    this.#trust = this.#options.distrust.watch({ id: peerId, chain, bundles: this.own.bundles }, (error) =>
      this.close(error),
    );
    this.#settleReady(info);
  }

  #isClosed(): boolean {
    return this.#state.kind === "closed";
  }

  #connectTimer(withinMs: number): Disposable {
    return this.#options.clock.timer(withinMs, () =>
      this.#fail(this.#unreachable(`no session after ${withinMs} ms`)),
    );
  }

  #callDone(): void {
    this.#lastCallMs = this.#options.clock.monotonic();
    if (this.#calls.size === 0 && this.#state.kind === "leaving") this.close();
  }

  #watchIdle(afterMs: number): void {
    const { clock, limits } = this.#options;
    this.#timer = clock.timer(afterMs, () => {
      const usedMs = Math.max(this.#lastCallMs, this.#readyMs);
      const idleMs = this.#calls.size > 0 ? 0 : clock.monotonic() - usedMs;
      if (idleMs >= limits.idleMs) this.close();
      else this.#watchIdle(limits.idleMs - idleMs);
    });
  }

  /** Why could grpc-js not connect? A call that cannot be sent is answered with its reason. */
  #explain(): void {
    const { refusal, server } = this.#credentials;
    if (refusal !== undefined) {
      this.#fail(this.#unreachable(refusal.message, refusal));
      return;
    }
    if (server !== undefined) {
      const why = `${server.id} closed the connection after the handshake, it may not accept ${this.own.svid.id}`;
      this.#fail(this.#unreachable(why));
      return;
    }
    const nothing = () => Buffer.alloc(0);
    this.#client.makeUnaryRequest("/grpc.health.v1.Health/Check", nothing, nothing, undefined, (error) => {
      const details = error?.details ?? "connection failed";
      this.#fail(this.#unreachable(connectFault(details) ?? details));
    });
  }

  #unreachable(why: string, cause?: NsmError): NsmError {
    const reason = cause?.reason ?? "unreachable";
    return new NsmError("UNAVAILABLE", reason, `cannot reach ${this.#url}: ${why}`, cause);
  }

  #fail(error: NsmError): void {
    if (this.#state.kind !== "connecting") return;
    this.#settleReady(error);
    this.close();
  }
}

function channelOptions(limits: ClientLimits) {
  return {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.enable_channelz": 0,
    "grpc.enable_http_proxy": 0,
    "grpc.service_config_disable_resolution": 1,
    "grpc.max_receive_message_length": limits.maxResponseBytes,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
  };
}
