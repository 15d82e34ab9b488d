/**
 * Chains of responsibility for NetworkService, checked by the compiler.
 *
 * An element is a function from the rest of the chain to a NetworkService. What it needs of the elements before it, and what
 * it adds for those after it, is part of its type: a wrong order does not compile (docs/protocol.md, "Chains").
 */
import type { Connection } from "../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";
import type { Peer } from "./grpc/peer.ts";
import type { PathToken } from "./token.ts";

/** What every element may rely on. Elements pass on `{ ...ctx, added }`, never a fresh object. */
export interface CallContext {
  /** Aborted when the caller gave up, the deadline passed, or a Close pre-empted this Request. */
  readonly signal: AbortSignal;
  /** Wall clock milliseconds; undefined when the caller set none. */
  readonly deadlineMs: number | undefined;
  /** Undefined only for calls that this process makes to itself (timeout, heal, the originator's own requests). */
  readonly peer: Peer | undefined;
  /** What the caller's metadata carried; undefined when it was missing, doubled or unreadable. */
  readonly callerToken: PathToken | undefined;
  /** Why this process makes the call to itself, for people. */
  readonly why?: string;
}

/** A whole chain, any suffix of it and a gRPC stub all have this shape. */
export interface NetworkService<C extends CallContext = CallContext> {
  request(request: NetworkServiceRequest, ctx: C): Promise<Connection>;
  close(connection: Connection, ctx: C): Promise<void>;
}

/** `Needs`: context values that it reads. `Adds`: context values that it passes on. */
export type Element<Needs = unknown, Adds = unknown> = (
  next: NetworkService<CallContext & Needs & Adds>,
) => NetworkService<CallContext & Needs>;

export interface Chain<C> {
  use<Needs, Adds>(name: string, element: C extends Needs ? Element<Needs, Adds> : never): Chain<C & Adds>;
  end(last: NetworkService<CallContext & C>): NetworkService;
}

/** Starts a chain; `wrap` sees each element with its name (for tracing). */
export function chain(
  wrap: (name: string, service: NetworkService) => NetworkService = (_, s) => s,
): Chain<unknown> {
  const links: { name: string; element: Element }[] = [];
  const self: Chain<unknown> = {
    use(name, element) {
      // `use` has checked Needs; values survive because elements spread the context.
      links.push({ name, element });
      return self;
    },
    end: (last) => links.reduceRight((next, { name, element }) => wrap(name, element(next)), last),
  };
  return self;
}
