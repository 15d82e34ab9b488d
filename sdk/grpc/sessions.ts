/**
 * The pool of sessions: one for each (target, SVID generation), shared by all calls.
 *
 * A new SVID replaces sessions, never breaks them: the successor is connected first, then new calls go there, streams are
 * told to move, and the old session ends with its last call. While the successor can't be connected the old one stays in use. So it is
 * when the server asks for it (GOAWAY), but that new calls have to wait for the successor.
 * New bundles leave them alone, but those whose server is not trusted any more, which end at once.
 */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { meters } from "../metrics/meters.ts";
import type { X509Source, X509Svid } from "../spiffe/source.ts";
import { parseAddress } from "./address.ts";
import type { Header } from "./caller.ts";
import { refused } from "./connector.ts";
import { createDistrust } from "./distrust.ts";
import type { Distrust } from "./distrust.ts";
import { CLIENT_LIMITS } from "./limits.ts";
import type { ClientLimits } from "./limits.ts";
import type { Method } from "./service.ts";
import { cancelled } from "./calls.ts";
import type { CallSettings } from "./calls.ts";
import { Session } from "./session.ts";
import type { SessionInfo } from "./session.ts";
import { REFUSED } from "./status.ts";
import type { Verify } from "./tls.ts";

/** How often a call is made of which nothing reached a server that did anything: sessions that end as soon as they begin. */
const MAX_ATTEMPTS = 10;

/** A session whose certificate ends so soon should have been replaced. */
const URGENT_MS = 2000;

/** Whom to call. */
export interface Target {
  /** `unix:///path`, `tcp://host:port` or `host:port`. */
  readonly url: string;
  /** Which SPIFFE ids the server may have; any of a trusted domain unless told. */
  readonly expect?: (spiffeId: string) => boolean;
  /** Names the target among sessions when its url does not (`/proc/self/fd/7` is a new socket each time). */
  readonly key?: string;
}

export interface CallContext {
  readonly signal?: AbortSignal | undefined;
  /** Wall clock, milliseconds since 1970. */
  readonly deadlineMs?: number | undefined;
  /** From now; the earlier of the two holds. Unary calls with neither get 15 s, streams have no limit. */
  readonly timeoutMs?: number | undefined;
  /** Unary calls: the server is told when the call is over, but its answer is heard until `signal` aborts. */
  readonly hearsLate?: boolean;
  /** Made when the peer is known, just before the call is sent. */
  readonly metadata?: (
    session: SessionInfo,
  ) => Readonly<Record<string, string>> | Promise<Readonly<Record<string, string>>>;
}

export interface StreamContext extends CallContext {
  /**
   * The stream's session is being replaced: open the stream again (it goes to the next session), then leave this one. After
   * 30 s it is ended with UNAVAILABLE `session-closed`.
   */
  readonly onReplaced?: () => void;
}

/** Disposing ends all calls at once and closes every session. */
export interface SessionPool extends AsyncDisposable {
  /**
   * One request, one response. Throws the peer's error (code, reason, message), or UNAVAILABLE `unreachable`, `peer-refused`,
   * `session-closed`, the verifier's reason; DEADLINE_EXCEEDED; CANCELLED or the signal's own NsmError.
   */
  unary<I extends DescMessage, O extends DescMessage>(
    target: Target,
    method: Method<I, O>,
    request: MessageShape<I>,
    context?: CallContext,
  ): Promise<{ readonly response: MessageShape<O>; readonly header: Header }>;
  /** One request, many responses; the call begins with the first `next`. Throws as `unary`. */
  stream<I extends DescMessage, O extends DescMessage>(
    target: Target,
    method: Method<I, O>,
    request: MessageShape<I>,
    context?: StreamContext,
  ): AsyncGenerator<MessageShape<O>, void, undefined>;
  /** Connects if need be, and tells who serves. Throws as `unary`. */
  connect(target: Target, context?: CallContext): Promise<SessionInfo>;
  /** Ends the sessions with that URL and their calls at once: what is behind it is known to be gone, or is to be reached anew. */
  end(url: string): void;
}

export interface SessionPoolOptions {
  readonly source: X509Source;
  readonly verify: Verify;
  readonly log: Logger;
  readonly clock: Clock;
  readonly limits?: Partial<ClientLimits>;
}

/** The sessions of one target. */
interface Slot {
  /** As of the call that made the slot. */
  readonly target: Target;
  current: Session;
  next: Session | undefined;
  /** Monotonic; no successor is tried before. */
  nextTryMs: number;
}

/** Sessions with a peer whose certificate is not renewed in time are not replaced more often than this. */
const LEAST_RENEWAL_MS = 1000;

export function createSessionPool(options: SessionPoolOptions): SessionPool {
  return new Pool(options);
}

class Pool implements SessionPool {
  readonly #options: SessionPoolOptions;
  readonly #limits: ClientLimits;
  readonly #slots = new Map<string, Slot>();
  readonly #sessions = new Set<Session>();
  /** Wall clock: when half of what remained of the peer's certificate at the handshake is over. */
  readonly #renewAt = new WeakMap<Session, number>();
  readonly #sourceWatch: Disposable;
  readonly #distrust: Distrust;
  #closing: Promise<void> | undefined;

  constructor(options: SessionPoolOptions) {
    this.#options = options;
    this.#limits = { ...CLIENT_LIMITS, ...options.limits };
    // Streams make no new calls: without this they would keep the old identity until it expires.
    this.#distrust = createDistrust(options);
    this.#sourceWatch = options.source.onChange(({ svid }) => this.#replaceAll(svid));
  }

  async unary<I extends DescMessage, O extends DescMessage>(
    target: Target,
    method: Method<I, O>,
    request: MessageShape<I>,
    context: CallContext = {},
  ) {
    const deadlineMs = this.#deadlineOf(context) ?? this.#options.clock.now() + this.#limits.defaultTimeoutMs;
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#onSession(target, context, deadlineMs, (session, settings) =>
          session.calls.unary(method, request, settings),
        );
      } catch (error) {
        if (!isRefused(error) || attempt === MAX_ATTEMPTS) throw error;
      }
    }
  }

  async *stream<I extends DescMessage, O extends DescMessage>(
    target: Target,
    method: Method<I, O>,
    request: MessageShape<I>,
    context: StreamContext = {},
  ) {
    const deadlineMs = this.#deadlineOf(context);
    const { onReplaced } = context;
    for (let attempt = 1; ; attempt++) {
      try {
        return yield* await this.#onSession(target, context, deadlineMs, (session, settings) =>
          session.calls.stream(method, request, { ...settings, onReplaced }),
        );
      } catch (error) {
        if (!isRefused(error) || attempt === MAX_ATTEMPTS) throw error;
      }
    }
  }

  async connect(target: Target, context: CallContext = {}): Promise<SessionInfo> {
    return (await this.#readySession(target, context.signal, this.#deadlineOf(context))).info;
  }

  end(url: string): void {
    for (const { target, current, next } of this.#slots.values()) {
      if (target.url !== url) continue;
      next?.close();
      current.close();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#sourceWatch[Symbol.dispose]();
    this.#distrust[Symbol.dispose]();
    const sessions = [...this.#sessions];
    for (const session of sessions) session.close();
    await Promise.all(sessions.map((session) => session.closed()));
  }

  /** Runs `call` on a ready session, with metadata made for that session. */
  async #onSession<T>(
    target: Target,
    { signal, metadata, hearsLate }: CallContext,
    deadlineMs: number | undefined,
    call: (session: Session, settings: CallSettings) => T | Promise<T>,
  ): Promise<T> {
    for (;;) {
      const { session, info } = await this.#readySession(target, signal, deadlineMs);
      const made = metadata?.(info) ?? {};
      const values = made instanceof Promise ? await made : made;
      // It may have left in the meantime; what was made for it is of no use for another session.
      if (session.info === undefined) continue;
      const settings = { metadata: values, deadlineMs, signal, onReplaced: undefined };
      const toldMs = deadlineMs === undefined ? undefined : deadlineMs - this.#options.clock.now();
      return await call(
        session,
        hearsLate === true ? { ...settings, deadlineMs: undefined, toldMs } : settings,
      );
    }
  }

  async #readySession(
    target: Target,
    signal: AbortSignal | undefined,
    deadlineMs: number | undefined,
  ): Promise<{ readonly session: Session; readonly info: SessionInfo }> {
    const session = this.#pick(target);
    const info = session.info ?? (await this.#within(session.ready, signal, deadlineMs, target.url));
    // The session may have been made for a caller who is less particular.
    if (target.expect && !target.expect(info.peerId))
      throw refused(`${target.url}: the server is ${info.peerId}, which is not expected there`);
    return { session, info };
  }

  #pick(target: Target): Session {
    if (this.#closing) throw new NsmError("UNAVAILABLE", "session-closed", "the session pool is closed");
    const own = this.#options.source.current();
    const key = target.key ?? target.url;
    const slot = this.#slots.get(key);
    if (slot === undefined) {
      const current = this.#open(target, key);
      this.#slots.set(key, { target, current, next: undefined, nextTryMs: 0 });
      return current;
    }
    if (slot.current.own.svid === own.svid && !this.#isOutworn(slot.current)) return slot.current;
    this.#replace(slot, key);
    const expired = slot.current.own.svid.notAfterMs <= this.#options.clock.now();
    return expired && slot.next ? slot.next : slot.current;
  }

  #open(target: Target, key: string, limits = this.#limits): Session {
    const { source, verify, clock } = this.#options;
    const session = new Session({
      address: parseAddress(target.url),
      own: source.current(),
      expect: target.expect,
      verify,
      clock,
      limits,
      distrust: this.#distrust,
      onLeave: (isConnected) => this.#left(session, key, isConnected),
      onClose: () => void session.closed().then(() => this.#forget(session)),
    });
    this.#sessions.add(session);
    meters.sessions.add({ side: "client" }, 1);
    const noteTime = ({ peerCertificate }: SessionInfo) => {
      const now = clock.now();
      this.#renewAt.set(
        session,
        now + Math.max(LEAST_RENEWAL_MS, (peerCertificate.validToDate.getTime() - now) / 2),
      );
    };
    const count = (result: string) => meters.handshakes.inc({ side: "client", result });
    session.ready.then(
      (info) => {
        count("ok");
        noteTime(info);
      },
      () => count("failed"), // whoever waits for the session hears of it
    );
    return session;
  }

  #forget(session: Session): void {
    if (this.#sessions.delete(session)) meters.sessions.add({ side: "client" }, -1);
  }

  /** Connects the successor beside the current session, which stays in use until the successor is ready. */
  #replace(slot: Slot, key: string): void {
    const { clock, log } = this.#options;
    if (slot.next !== undefined || clock.monotonic() < slot.nextTryMs) return;
    const next = this.#openNext(slot, key);
    slot.next = next;
    next.ready.then(
      () => {
        const old = slot.current;
        slot.next = undefined;
        slot.current = next;
        if (old !== next) old.leave();
      },
      (err: unknown) => {
        slot.next = undefined;
        slot.nextTryMs = clock.monotonic() + this.#limits.replaceRetryMs;
        // The session with the old one goes on; only near its end is that anybody's trouble.
        const leftMs = slot.current.own.svid.notAfterMs - clock.now();
        const level = leftMs < URGENT_MS ? "warn" : "info";
        log[level]({ err, peer: slot.target.url, leftMs }, "cannot show the new identity yet");
      },
    );
  }

  /** The peer has a newer certificate by now, and what it signs for this session lives no longer than the one it showed here. */
  #isOutworn(session: Session): boolean {
    return this.#options.clock.now() > (this.#renewAt.get(session) ?? Infinity);
  }

  #replaceAll(svid: X509Svid): void {
    for (const [key, slot] of this.#slots)
      if (slot.current.calls.size > 0 && slot.current.own.svid !== svid) this.#replace(slot, key);
  }

  /** Gives a session that is in use, and whose server has asked it to go, a successor at once: resolves when that is there. */
  #left(session: Session, key: string, isConnected: boolean): Promise<unknown> | undefined {
    const slot = this.#slots.get(key);
    if (slot?.current !== session) return undefined;
    if (slot.next !== undefined && slot.next !== session) {
      slot.current = slot.next;
      if (isConnected) return slot.next.ready;
      slot.next.hurry(this.#limits.connectMs);
      return undefined;
    }
    this.#slots.delete(key);
    if (!isConnected || !session.isMissed || this.#closing !== undefined || !this.#hasIdentity())
      return undefined;
    slot.current = this.#openNext(slot, key);
    this.#slots.set(key, slot);
    return slot.current.ready;
  }

  #openNext({ target }: Slot, key: string): Session {
    const { connectMs, replaceConnectMs } = this.#limits;
    return this.#open(target, key, {
      ...this.#limits,
      connectMs: Math.max(connectMs, replaceConnectMs),
    });
  }

  #hasIdentity(): boolean {
    try {
      return this.#options.source.current() !== undefined;
    } catch {
      return false; // whoever calls hears why
    }
  }

  #deadlineOf({ deadlineMs, timeoutMs }: CallContext): number | undefined {
    if (timeoutMs === undefined) return deadlineMs;
    return Math.min(deadlineMs ?? Infinity, this.#options.clock.now() + timeoutMs);
  }

  /** What the promise gives, or the caller's end of patience. */
  #within<T>(
    promise: Promise<T>,
    signal: AbortSignal | undefined,
    deadlineMs: number | undefined,
    url: string,
  ): Promise<T> {
    const { clock } = this.#options;
    return new Promise((resolve, reject) => {
      const onAbort = () => reject(cancelled(signal));
      const timer =
        deadlineMs === undefined
          ? undefined
          : clock.timer(deadlineMs - clock.now(), () =>
              reject(
                new NsmError(
                  "DEADLINE_EXCEEDED",
                  "deadline-exceeded",
                  `${url}: no session before the deadline`,
                ),
              ),
            );
      signal?.addEventListener("abort", onAbort, { once: true });
      if (signal?.aborted) onAbort();
      void promise.then(resolve, reject).finally(() => {
        timer?.[Symbol.dispose]();
        signal?.removeEventListener("abort", onAbort);
      });
    });
  }
}

/** The server was about to end the session and did nothing: the next session is as good. */
function isRefused(error: unknown): boolean {
  return error instanceof NsmError && error.reason === REFUSED;
}
