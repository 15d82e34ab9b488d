/**
 * How the proxy of a domain tells the identity authority which other trust domains to trust, and hears what it publishes
 * itself (api/federation.proto; docs/identity.md, "Federation").
 *
 * Agents of SPIRE have no such service: there the operator federates the servers, and the own bundle is read off the Workload API.
 */
import { create } from "@bufbuild/protobuf";
import type { DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Federation } from "../../api/gen/federation_pb.js";
import type { Bundle as BundleMessage } from "../../api/gen/federation_pb.js";
import { systemClock } from "../clock.ts";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import { createPlainClient } from "../grpc/plain.ts";
import type { Method } from "../grpc/service.ts";
import type { Logger } from "../log.ts";
import { formatBundle, parseBundle } from "./bundle.ts";
import type { Bundle } from "./bundle.ts";
import { parseTrustDomain, parseWorkloadId } from "./id.ts";
import { openLive } from "./live.ts";
import type { Live } from "./live.ts";
import type { X509Snapshot, X509Source } from "./source.ts";
import { WORKLOAD_METADATA, parseEndpointSocket } from "./workload-api.ts";

/** The authority writes to disk before it answers. */
const DEADLINE_MS = 10_000;

export interface TrustDomainBundle {
  readonly trustDomain: string;
  /** The SPIFFE bundle document, JSON. */
  readonly document: Buffer;
  readonly bundle: Bundle;
}

export interface FederationOptions {
  /** `unix:///path`, the value of SPIFFE_ENDPOINT_SOCKET. */
  readonly socket: string;
  /** Default: the system's. */
  readonly clock?: Clock;
}

/**
 * All throw UNIMPLEMENTED `no-federation` when another program than `nsm identity` serves the socket, PERMISSION_DENIED `not-federation`
 * or `not-registered`, and UNAVAILABLE when nobody serves.
 */
export interface FederationClient {
  /**
   * Trusts a domain from now on, or replaces its bundle; it is on disk when this resolves, and on its way to all workloads. Throws
   * INVALID_ARGUMENT `own-trust-domain`, `bad-bundle`, `bundle-too-large`; FAILED_PRECONDITION `sequence-backwards`; RESOURCE_EXHAUSTED.
   */
  setBundle(trustDomain: string, document: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** Ends the trust in a domain; one that is not trusted is no error. */
  removeBundle(trustDomain: string, signal?: AbortSignal): Promise<void>;
  /** Of all trusted domains but the own one. */
  listBundles(signal?: AbortSignal): Promise<readonly TrustDomainBundle[]>;
}

export function createFederationClient({ socket, clock = systemClock }: FederationOptions): FederationClient {
  const call = async <I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageInitShape<I>,
    signal: AbortSignal | undefined,
  ): Promise<MessageShape<O>> => {
    using client = createPlainClient(parseEndpointSocket(socket));
    const deadlineMs = clock.now() + DEADLINE_MS;
    const settings = { metadata: WORKLOAD_METADATA, signal, deadlineMs, onReplaced: undefined };
    try {
      return (await client.calls.unary(method, create(method.input, request), settings)).response;
    } catch (error) {
      throw explained(error, socket);
    }
  };
  return {
    async setBundle(trustDomain, document, signal) {
      await call(Federation.method.setBundle, { bundle: { trustDomain, document } }, signal);
    },
    async removeBundle(trustDomain, signal) {
      await call(Federation.method.removeBundle, { trustDomain }, signal);
    },
    async listBundles(signal) {
      const { bundles } = await call(Federation.method.listBundles, {}, signal);
      return bundles.map(readMessage);
    },
  };
}

export interface OwnBundleOptions extends FederationOptions {
  readonly source: X509Source;
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** How long the first answer may take. Default 10 s. */
  readonly waitMs?: number;
}

/**
 * What this process's own trust domain publishes, kept up to date. Where the authority is not ours it is what the X509 source
 * shows of the own domain: certificates alone, without a sequence. Throws what the first attempt fails with.
 */
export async function openOwnBundle(options: OwnBundleOptions): Promise<Live<TrustDomainBundle>> {
  const { socket, source, log, signal, waitMs = DEADLINE_MS, clock = systemClock } = options;
  try {
    return await openLive<BundleMessage, TrustDomainBundle>({
      what: "bundle of the own trust domain",
      socket,
      log,
      signal,
      waitMs,
      clock,
      async *open(stop) {
        using client = createPlainClient(parseEndpointSocket(socket));
        const { watchBundle } = Federation.method;
        const settings = {
          metadata: WORKLOAD_METADATA,
          signal: stop,
          deadlineMs: undefined,
          onReplaced: undefined,
        };
        yield* client.calls.stream(watchBundle, create(watchBundle.input), settings);
      },
      read: (message, previous) => {
        const next = readMessage(message);
        return previous?.document.equals(next.document) === true ? previous : next;
      },
    });
  } catch (error) {
    if (!(error instanceof NsmError) || error.code !== "UNIMPLEMENTED") throw error;
    log.info({ socket }, "the authority is not ours, its own bundle is read off the identity");
    return ownBundleOf(source);
  }
}

function ownBundleOf(source: X509Source): Live<TrustDomainBundle> {
  let last: { readonly certificates: unknown; readonly value: TrustDomainBundle } | undefined;
  const read = ({ svid, bundles }: X509Snapshot): TrustDomainBundle => {
    const { trustDomain } = parseWorkloadId(svid.id);
    const certificates = bundles.get(trustDomain) ?? [];
    if (last?.certificates === certificates) return last.value;
    const bundle: Bundle = { certificates, jwtKeys: [], sequence: undefined, refreshHintSeconds: undefined };
    const value = { trustDomain, bundle, document: Buffer.from(formatBundle(bundle)) };
    last = { certificates, value };
    return value;
  };
  const listeners = new Set<Disposable>();
  return {
    current: () => read(source.current()),
    onChange(listener) {
      let known = last?.value;
      const watching = source.onChange((snapshot) => {
        const next = read(snapshot);
        if (next !== known) listener(next);
        known = next;
      });
      listeners.add(watching);
      return watching;
    },
    [Symbol.asyncDispose]() {
      for (const each of listeners) each[Symbol.dispose]();
      return Promise.resolve();
    },
  };
}

function readMessage({ trustDomain, document }: BundleMessage): TrustDomainBundle {
  return {
    trustDomain: parseTrustDomain(trustDomain),
    document: Buffer.from(document),
    bundle: parseBundle(document),
  };
}

function explained(error: unknown, socket: string): unknown {
  if (!(error instanceof NsmError) || error.code !== "UNIMPLEMENTED") return error;
  const text = `the Workload API at ${socket} (SPIFFE_ENDPOINT_SOCKET) is not that of "nsm identity", so the trust in other domains is not ours to change: let its operator federate them (SPIRE: spire-server federation create, and federatesWith in the registration entries)`;
  return new NsmError("UNIMPLEMENTED", "no-federation", text, error);
}
