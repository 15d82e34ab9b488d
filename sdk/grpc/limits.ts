/** Counts and times that hold for every session; sizes are those of `sdk/limits.ts` (docs/protocol.md, "Limits"). */
import { Limits } from "../limits.ts";

export interface ServerLimits {
  /** Largest request message, bytes. */
  readonly maxRequestBytes: number;
  /** Largest message that we send, bytes: one entry of a Find. */
  readonly maxResponseBytes: number;
  /** From accept to the end of the TLS handshake, and from there to the first byte of HTTP/2. */
  readonly handshakeMs: number;
  /** Connections of one listener that have not finished their handshake. */
  readonly maxHalfOpen: number;
  /** Streams that one peer may have open at once in one session. */
  readonly maxConcurrentStreams: number;
  /** What HTTP/2 may keep in memory for one session, MiB. */
  readonly maxSessionMiB: number;
  /** A session without streams is closed after this. */
  readonly idleMs: number;
  /** A session gets a GOAWAY at this age, plus or minus 10 %. */
  readonly maxAgeMs: number;
  /** How long streams live on after that GOAWAY. */
  readonly maxAgeGraceMs: number;
  /** A stream whose receiver takes nothing for this long is ended. */
  readonly stalledStreamMs: number;
}

export const SERVER_LIMITS: ServerLimits = {
  maxRequestBytes: Limits.messageBytes,
  maxResponseBytes: Limits.findMessageBytes,
  handshakeMs: 3000,
  maxHalfOpen: 64,
  maxConcurrentStreams: 100,
  maxSessionMiB: 16,
  idleMs: 5 * 60_000,
  maxAgeMs: 30 * 60_000,
  maxAgeGraceMs: 60_000,
  stalledStreamMs: 10_000,
};

export interface ClientLimits {
  /** Largest response message, bytes. */
  readonly maxResponseBytes: number;
  /** From the first packet to the end of the HTTP/2 handshake. */
  readonly connectMs: number;
  /** The same, if that is longer, for a session that takes another one's place: the peer is known to be there, and usually nobody waits. */
  readonly replaceConnectMs: number;
  /** For unary calls that name no deadline. */
  readonly defaultTimeoutMs: number;
  /** A session without calls is closed after this. */
  readonly idleMs: number;
  /** How long the calls of a replaced session may go on. */
  readonly drainMs: number;
  /** Pause before another try to move a target to a new identity, while the old session still works. */
  readonly replaceRetryMs: number;
}

export const CLIENT_LIMITS: ClientLimits = {
  maxResponseBytes: Limits.findMessageBytes,
  connectMs: 5000,
  replaceConnectMs: 5000,
  defaultTimeoutMs: 15_000,
  idleMs: 5 * 60_000,
  drainMs: 30_000,
  replaceRetryMs: 1000,
};
