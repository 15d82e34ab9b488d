/** Pieces of chains for tests: requests, contexts, and an end that can be told how to answer. */
import { clone, create } from "@bufbuild/protobuf";
import { ConnectionSchema } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import type { CallContext, NetworkService } from "../../sdk/chain.ts";
import type { WithEvents } from "../../sdk/elements/begin.ts";
import type { Peer } from "../../sdk/grpc/peer.ts";

/** A request whose path is one segment a name, at the last of them. */
export function requestOn(names: readonly string[], ids: readonly string[] = names): NetworkServiceRequest {
  const index = names.length - 1;
  return create(NetworkServiceRequestSchema, {
    connection: {
      id: ids[index] ?? "",
      networkService: "service",
      path: { index, pathSegments: names.map((name, i) => ({ name, id: ids[i] ?? name })) },
    },
  });
}

export function connectionOn(names: readonly string[], ids?: readonly string[]): Connection {
  return requestOn(names, ids).connection ?? create(ConnectionSchema);
}

/** A call without limits. */
export function callBy(peer: Peer, overrides: Partial<CallContext> = {}): CallContext {
  return {
    signal: new AbortController().signal,
    deadlineMs: undefined,
    peer,
    callerToken: undefined,
    ...overrides,
  };
}

export function eventsOf(ctx: CallContext, overrides: Partial<WithEvents> = {}): CallContext & WithEvents {
  return {
    ...ctx,
    events: { close: () => Promise.resolve() },
    established: false,
    previous: undefined,
    ...overrides,
  };
}

/** What reached the end of a chain, in order. */
export interface Recorded {
  readonly kind: "request" | "close";
  readonly connection: Connection;
}

export interface Recorder<C extends CallContext> extends NetworkService<C> {
  readonly calls: Recorded[];
  /** What the next calls do; the default answers a request with its own connection. */
  answer: (call: Recorded, ctx: C) => Promise<Connection>;
}

export function createRecorder<C extends CallContext>(): Recorder<C> {
  const recorder: Recorder<C> = {
    calls: [],
    answer: ({ connection }) => Promise.resolve(connection),
    request(request, ctx) {
      const connection = request.connection ?? create(ConnectionSchema);
      const call: Recorded = { kind: "request", connection: clone(ConnectionSchema, connection) };
      recorder.calls.push(call);
      return recorder.answer({ ...call, connection }, ctx);
    },
    async close(connection, ctx) {
      const call: Recorded = { kind: "close", connection: clone(ConnectionSchema, connection) };
      recorder.calls.push(call);
      await recorder.answer({ ...call, connection }, ctx);
    },
  };
  return recorder;
}

/** A promise that a test settles, with the moment when somebody first waited on it. */
export function createGate<T = void>(): PromiseWithResolvers<T> & {
  readonly reached: Promise<void>;
  wait(): Promise<T>;
} {
  const inner = Promise.withResolvers<T>();
  const reached = Promise.withResolvers<void>();
  return {
    ...inner,
    reached: reached.promise,
    wait() {
      reached.resolve();
      return inner.promise;
    },
  };
}
