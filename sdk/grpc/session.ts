/**
 * One session of the calling side: one certificate of ours, one peer, one grpc-js channel.
 *
 *     connecting --> ready --> leaving --> closed
 *          |            |                    ^
 *          +------------+--------------------+
 *
 * `leaving` takes no new calls and lets those in progress end, for a while. A session leaves when it is replaced by one with
 * a newer SVID, when its connection breaks, and when the server sends GOAWAY. It never becomes ready again.
 */
import type { X509Certificate } from "node:crypto";
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { Client, Metadata, connectivityState } from "@grpc/grpc-js";
import type { CallOptions, ClientReadableStream } from "@grpc/grpc-js";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import type { X509Snapshot } from "../spiffe/source.ts";
import { formatAddress, grpcTarget } from "./address.ts";
import type { Address } from "./address.ts";
import { headerOf } from "./caller.ts";
import type { Header } from "./caller.ts";
import { SessionCredentials } from "./connector.ts";
import type { ServerIdentity } from "./connector.ts";
import type { ClientLimits } from "./limits.ts";
import type { PeerProcess } from "./peer.ts";
import { methodDefinition } from "./service.ts";
import type { Method } from "./service.ts";
import { errorOfStatus } from "./status.ts";
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
  /** Called once, when the session takes no calls any more. */
  readonly onLeave: () => void;
  /** Called once, when everything is ended; its sockets may still be closing. */
  readonly onClose: () => void;
}

/** How one call is made; all of it is known to be final. */
export interface CallSettings {
  readonly metadata: Readonly<Record<string, string>>;
  /** Wall clock, milliseconds since 1970. */
  readonly deadlineMs: number | undefined;
  readonly signal: AbortSignal | undefined;
  /** For streams: the session leaves; whoever needs the stream opens it again, on the next session. */
  readonly onReplaced: (() => void) | undefined;
}

type State =
  | { readonly kind: "connecting" }
  | { readonly kind: "ready"; readonly info: SessionInfo }
  | { readonly kind: "leaving" }
  | { readonly kind: "closed" };

/** A call in progress, as the session sees it. */
interface OpenCall {
  readonly onReplaced: (() => void) | undefined;
  /** Ends it with that error. */
  end(error: NsmError): void;
}

export class Session {
  readonly own: X509Snapshot;
  /** Rejects with UNAVAILABLE and the reason why there is no session. */
  readonly ready: Promise<SessionInfo>;
  readonly #options: SessionOptions;
  readonly #url: string;
  readonly #credentials: SessionCredentials;
  readonly #client: Client;
  readonly #calls = new Set<OpenCall>();
  #state: State = { kind: "connecting" };
  #timer: Disposable;
  #lastUsedMs: number;
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
    this.ready = new Promise((resolve, reject) => {
      this.#settleReady = (outcome) => (outcome instanceof NsmError ? reject(outcome) : resolve(outcome));
    });
    // Whoever waits gets the error; a session that nobody waits for may fail silently.
    this.ready.catch(() => undefined);
    this.#lastUsedMs = clock.monotonic();
    this.#timer = clock.timer(limits.connectMs, () =>
      this.#fail(this.#unreachable(`no session after ${limits.connectMs} ms`)),
    );
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

  /** Calls are in progress. */
  get isBusy(): boolean {
    return this.#calls.size > 0;
  }

  /** The session must be ready. Throws the peer's error, or UNAVAILABLE, CANCELLED, DEADLINE_EXCEEDED. */
  unary<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageShape<I>,
    settings: CallSettings,
  ): Promise<{ readonly response: MessageShape<O>; readonly header: Header }> {
    const { path, requestSerialize, responseDeserialize } = methodDefinition(method);
    const metadata = metadataOf(settings.metadata);
    return new Promise((resolve, reject) => {
      let header: Header | undefined;
      const call = this.#client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        metadata,
        optionsOf(settings),
        (error, response) => {
          const failure = done();
          if (response === undefined) reject(failure ?? errorOfStatus(error, this.#url));
          else resolve({ response, header: header ?? headerOf(new Metadata()) });
        },
      );
      call.once("metadata", (received: Metadata) => (header = headerOf(received)));
      const done = this.#enter(call, settings);
    });
  }

  /** The session must be ready, the result must be read. Throws as `unary`; leaving the loop ends the call. */
  stream<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageShape<I>,
    settings: CallSettings,
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    const { path, requestSerialize, responseDeserialize } = methodDefinition(method);
    const call = this.#client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadataOf(settings.metadata),
      optionsOf(settings),
    );
    // `#read` sees errors; this is for one that comes after the reader has left.
    call.on("error", () => undefined);
    return this.#read(call, this.#enter(call, settings));
  }

  async *#read<T>(
    call: ClientReadableStream<T>,
    done: () => NsmError | undefined,
  ): AsyncGenerator<T, void, undefined> {
    try {
      const messages: AsyncIterable<T> = call;
      yield* messages;
    } catch (error) {
      throw done() ?? errorOfStatus(error, this.#url);
    } finally {
      done();
      call.cancel();
    }
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
    onLeave();
    for (const call of this.#calls) call.onReplaced?.();
    if (this.#calls.size === 0) this.close();
  }

  /** Ends everything at once; calls in progress fail with UNAVAILABLE `session-closed`. */
  close(): void {
    if (this.#state.kind === "closed") return;
    const wasOpen = this.isOpen;
    this.#state = { kind: "closed" };
    this.#timer[Symbol.dispose]();
    const error = new NsmError("UNAVAILABLE", "session-closed", `${this.#url}: the session was closed`);
    this.#settleReady(error);
    if (wasOpen) this.#options.onLeave();
    for (const call of this.#calls) call.end(error);
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
    if (isConnecting && state === connectivityState.READY) this.#becomeReady(this.#credentials.server);
    else if (!isConnecting && state !== connectivityState.READY) {
      this.leave();
      return;
    }
    channel.watchConnectivityState(state, Infinity, () => this.#watch());
  }

  #becomeReady(server: ServerIdentity | undefined): void {
    if (server === undefined) throw new NsmError("INTERNAL", "no-peer", `${this.#url}: ready without a peer`);
    const { id: peerId, certificate: peerCertificate, process } = server;
    const info = { peerId, peerCertificate, own: this.own, process };
    this.#state = { kind: "ready", info };
    this.#timer[Symbol.dispose]();
    this.#watchIdle(this.#options.limits.idleMs);
    this.#settleReady(info);
  }

  #watchIdle(afterMs: number): void {
    const { clock, limits } = this.#options;
    this.#timer = clock.timer(afterMs, () => {
      const idleMs = this.#calls.size > 0 ? 0 : clock.monotonic() - this.#lastUsedMs;
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
      const [, reason = details] =
        /Last error: (?:Error: )?(.*?)(?: \([^()]*\))?\. Resolution note/.exec(details) ?? [];
      this.#fail(this.#unreachable(reason));
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

  /** Registers a call; the result takes it out again and tells with what it was ended here, if it was. */
  #enter(call: { cancel(): void }, settings: CallSettings): () => NsmError | undefined {
    const { signal, onReplaced } = settings;
    let failure: NsmError | undefined;
    const end = (error: NsmError) => {
      failure ??= error;
      call.cancel();
    };
    const onAbort = () => end(cancelled(signal));
    const entry: OpenCall = { onReplaced, end };
    this.#calls.add(entry);
    signal?.addEventListener("abort", onAbort, { once: true });
    if (signal?.aborted) onAbort();
    return () => {
      signal?.removeEventListener("abort", onAbort);
      this.#calls.delete(entry);
      this.#lastUsedMs = this.#options.clock.monotonic();
      if (this.#calls.size === 0 && this.#state.kind === "leaving") this.close();
      return failure;
    };
  }
}

/** The error of a call whose signal was aborted: the signal's own reason where it is an NsmError. */
export function cancelled(signal: AbortSignal | undefined): NsmError {
  const reason: unknown = signal?.reason;
  if (reason instanceof NsmError) return reason;
  return new NsmError("CANCELLED", "cancelled", "the call was cancelled", reason);
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

function metadataOf(values: Readonly<Record<string, string>>): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(values)) metadata.set(key, value);
  return metadata;
}

function optionsOf({ deadlineMs }: CallSettings): CallOptions {
  return deadlineMs === undefined ? {} : { deadline: deadlineMs };
}
