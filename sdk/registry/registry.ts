/** One interface for services and endpoints, on the serving and on the calling side (docs/protocol.md, "Registry queries"). */
import type { NetworkService, NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import type { Peer } from "../grpc/peer.ts";
import type { RegistrationPath } from "../registry-path.ts";

/** What comes with Register and Unregister. */
export interface RegistryContext {
  readonly signal: AbortSignal;
  readonly deadlineMs: number | undefined;
  /** Undefined for this process's own decisions (expiry, death of a registrant). */
  readonly peer: Peer | undefined;
  /** Tokens of the hops so far; a registry that passes the call on puts the longer path here. */
  readonly registration: { path: RegistrationPath };
  /** End of the tokens of caller and server, milliseconds since 1970: nothing is registered for longer. Undefined = no bound. */
  readonly latestExpiryMs?: number;
}

export interface Query<T> {
  /** Members that are set must fit; the rest is free. */
  readonly entry: T;
  /** Stay and tell of changes. */
  readonly watch: boolean;
}

export interface Found<T> {
  readonly entry: T;
  readonly deleted: boolean;
}

export interface Registry<T> {
  /** Adds or replaces by name; the answer is the stored entry. */
  register(entry: T, ctx: RegistryContext): Promise<T>;
  /** Present matches, then (with `watch`) changes until the signal aborts. */
  find(query: Query<T>, ctx: { readonly signal: AbortSignal }): AsyncIterable<Found<T>>;
  /** Removing what is not there is a success. */
  unregister(entry: T, ctx: RegistryContext): Promise<void>;
}

export interface Registries {
  readonly services: Registry<NetworkService>;
  readonly endpoints: Registry<NetworkServiceEndpoint>;
}

/** Everything that one non-watching Find yields. */
export async function findAll<T>(
  registry: Pick<Registry<T>, "find">,
  entry: T,
  signal: AbortSignal,
): Promise<T[]> {
  const entries: T[] = [];
  for await (const found of registry.find({ entry, watch: false }, { signal })) {
    if (!found.deleted) entries.push(found.entry);
  }
  return entries;
}
