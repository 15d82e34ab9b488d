/**
 * Client of the SPIFFE Workload API (SPIFFE standards "Workload Endpoint" and "Workload API"): where this process's identity
 * comes from, be it our own authority (docs/identity.md) or an agent of SPIRE.
 */
import { isIP } from "node:net";
import { create } from "@bufbuild/protobuf";
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { JWTSVIDRequestSchema, SpiffeWorkloadAPI } from "../../api/gen/workload_pb.js";
import { systemClock } from "../clock.ts";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import { parseAddress } from "../grpc/address.ts";
import type { Address } from "../grpc/address.ts";
import { createPlainClient } from "../grpc/plain.ts";
import type { Method } from "../grpc/service.ts";
import type { Logger } from "../log.ts";
import { readJwtBundles } from "./jwt.ts";
import type { JwtBundles } from "./jwt.ts";
import { openLive } from "./live.ts";
import type { Live } from "./live.ts";
import type { X509Snapshot, X509Source } from "./source.ts";
import { readX509Response } from "./x509-message.ts";

/** Every request carries it, so that a browser or a proxy cannot be made to ask (SPIFFE standard "Workload Endpoint", §5). */
export const WORKLOAD_METADATA = { "workload.spiffe.io": "true" };
const UNARY_DEADLINE_MS = 10_000;

export interface WorkloadApiOptions {
  /** `unix:///path` or `tcp://ip:port`, the value of SPIFFE_ENDPOINT_SOCKET. */
  readonly socket: string;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Default: the system's. */
  readonly clock?: Clock;
  /** How long the first identity may take: the authority may still be starting, or not know us yet. Default 10 s. */
  readonly waitMs?: number;
  /** The same where the authority listens and says nothing yet. Default 30 s. */
  readonly silentMs?: number;
}

/**
 * The identity of this process, kept up to date until it is disposed or `signal` aborts.
 *
 * Throws UNAVAILABLE `identity-unavailable` (nobody answers), PERMISSION_DENIED `identity-refused` (no registration fits
 * this process), INVALID_ARGUMENT `bad-endpoint-socket`.
 */
export async function openX509Source(options: WorkloadApiOptions): Promise<X509Source> {
  const { clock = systemClock, socket } = options;
  const live = await openStream(options, "X509-SVID", {
    method: SpiffeWorkloadAPI.method.fetchX509SVID,
    read: (message, previous: X509Snapshot | undefined) => readX509Response(message, previous, clock.now()),
  });
  return {
    ...live,
    current() {
      const snapshot = live.current();
      if (clock.now() <= snapshot.svid.notAfterMs) return snapshot;
      // Every peer would refuse it, without telling us why.
      const text = `${snapshot.svid.id} expired, and the Workload API at ${socket} gave no new certificate`;
      throw new NsmError("UNAVAILABLE", "identity-expired", text);
    },
  };
}

/** The keys that may sign JWT-SVIDs, by trust domain; otherwise like `openX509Source`. */
export function openJwtBundles(options: WorkloadApiOptions): Promise<Live<JwtBundles>> {
  return openStream(options, "JWT bundles", {
    method: SpiffeWorkloadAPI.method.fetchJWTBundles,
    read: (message) => readJwtBundles(message),
  });
}

/** A JWT-SVID of this process for these audiences. Throws the API's status (PERMISSION_DENIED, UNAVAILABLE). */
export async function fetchJwtSvid(
  options: Pick<WorkloadApiOptions, "socket" | "signal" | "clock">,
  audience: readonly [string, ...string[]],
): Promise<{ readonly id: string; readonly token: string }> {
  using client = createPlainClient(parseEndpointSocket(options.socket));
  const request = create(JWTSVIDRequestSchema, { audience: [...audience] });
  const { response } = await client.calls.unary(SpiffeWorkloadAPI.method.fetchJWTSVID, request, {
    metadata: WORKLOAD_METADATA,
    signal: options.signal,
    deadlineMs: (options.clock ?? systemClock).now() + UNARY_DEADLINE_MS,
    onReplaced: undefined,
  });
  const [first] = response.svids;
  if (first === undefined)
    throw new NsmError("INTERNAL", "bad-workload-message", "the answer holds no JWT-SVID");
  return { id: first.spiffeId, token: first.svid };
}

/** A method whose request is empty. */
interface Stream<I extends DescMessage, O extends DescMessage, T> {
  readonly method: Method<I, O>;
  readonly read: (message: MessageShape<O>, previous: T | undefined) => T;
}

async function openStream<I extends DescMessage, O extends DescMessage, T>(
  options: WorkloadApiOptions,
  what: string,
  { method, read }: Stream<I, O, T>,
): Promise<Live<T>> {
  const { clock = systemClock, waitMs = 10_000, ...rest } = options;
  const address = parseEndpointSocket(options.socket);
  return openLive<MessageShape<O>, T>({
    ...rest,
    what,
    clock,
    waitMs,
    read,
    async *open(signal) {
      // A channel of its own for each attempt: a shared one would wait by its own back-off before it connects again.
      using client = createPlainClient(address);
      const settings = { metadata: WORKLOAD_METADATA, signal, deadlineMs: undefined, onReplaced: undefined };
      yield* client.calls.stream(method, create(method.input), settings);
    },
  });
}

/** `unix:///path` or `tcp://ip:port` and nothing else. Throws INVALID_ARGUMENT `bad-endpoint-socket`. */
export function parseEndpointSocket(text: string): Address {
  const address = /^(unix:\/\/\/|tcp:\/\/)/.test(text) && !/[?#]/.test(text) ? parseAddress(text) : undefined;
  if (address?.kind === "unix" || (address?.kind === "tcp" && isIP(address.host) !== 0)) return address;
  throw new NsmError(
    "INVALID_ARGUMENT",
    "bad-endpoint-socket",
    `SPIFFE_ENDPOINT_SOCKET ${JSON.stringify(text)}: expected unix:///absolute/path or tcp://ip:port`,
  );
}
