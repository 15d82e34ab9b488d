/** Handlers of the mesh behind grpc-js: bytes in, checks, handler, bytes or status out. No exception gets through. */
import type { DescMessage, DescMethod, DescService, MessageShape } from "@bufbuild/protobuf";
import type { Metadata, Server, handleServerStreamingCall, handleUnaryCall } from "@grpc/grpc-js";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import { checkMetadataLimits } from "../limits.ts";
import type { Logger } from "../log.ts";
import type { Authorize } from "./accept.ts";
import { CallInProgress } from "./caller.ts";
import type { Caller, ServerCall } from "./caller.ts";
import type { ServerLimits } from "./limits.ts";
import type { Peer } from "./peer.ts";
import { methodDefinition } from "./service.ts";
import type { Calls, TypedService } from "./service.ts";
import { statusOf } from "./status.ts";
import { pump } from "./pump.ts";

/** The methods of a service, each a function of the request and the caller. */
export type Handlers<S extends TypedService, P = Peer> = Calls<S, Caller<P>>;

/** Adds a service; `authorize` refuses callers of any of its methods. */
export type AddService = <S extends DescService>(
  service: S,
  handlers: Handlers<S>,
  authorize?: Authorize,
) => void;

export interface HandlerEnvironment<P = Peer> {
  readonly log: Logger;
  readonly clock: Clock;
  readonly limits: Pick<ServerLimits, "stalledStreamMs">;
  /** The peer of a session, by the name that its socket bears as remote address. */
  peerOf(session: string): P | undefined;
  /** For messages. */
  nameOf(peer: P): string;
  /** Calls in progress, so that they can be told when the server stops. */
  readonly calls: Set<CallInProgress<P>>;
}

type Message = MessageShape<DescMessage>;
type Unary<P> = (request: Message, caller: Caller<P>) => Promise<Message>;
type ServerStreaming<P> = (request: Message, caller: Caller<P>) => AsyncIterable<Message>;

/** Throws INTERNAL `unsupported-method` for methods whose requests are streams. */
export function addService<P>(
  server: Server,
  service: DescService,
  handlers: Readonly<Record<string, unknown>>,
  authorize: Authorize<P> | undefined,
  env: HandlerEnvironment<P>,
): void {
  const same = (bytes: Buffer) => bytes;
  for (const method of service.methods) {
    const { path } = methodDefinition(method);
    const handler = handlers[method.localName];
    if (!isHandler<P>(handler)) throw new NsmError("INTERNAL", "no-handler", `${path} has no handler`);
    switch (method.methodKind) {
      case "unary":
        server.register(path, unary(method, handler, authorize, env), same, same, "unary");
        break;
      case "server_streaming": {
        const streaming = serverStreaming(method, handler, authorize, env);
        server.register(path, streaming, same, same, "serverStream");
        break;
      }
      case "client_streaming":
      case "bidi_streaming":
        throw new NsmError(
          "INTERNAL",
          "unsupported-method",
          `${path}: streams of requests are not supported`,
        );
    }
  }
}

/** Handlers<S> has checked the function's type against its method; here it is one of many. */
function isHandler<P>(value: unknown): value is Unary<P> & ServerStreaming<P> {
  return typeof value === "function";
}

function unary<P>(
  method: DescMethod,
  handler: Unary<P>,
  authorize: Authorize<P> | undefined,
  env: HandlerEnvironment<P>,
): handleUnaryCall<Buffer, Buffer> {
  const { requestDeserialize, responseSerialize, path } = methodDefinition(method);
  return (call, respond) => {
    const answer = async (): Promise<Buffer> => {
      const caller = open(call, authorize, env, undefined);
      try {
        const request = requestDeserialize(call.request);
        return responseSerialize(await handler(request, caller));
      } finally {
        close(caller, env);
      }
    };
    void answer().then(
      (response) => respond(null, response),
      (error: unknown) => respond(failure(error, path, env)),
    );
  };
}

function serverStreaming<P>(
  method: DescMethod,
  handler: ServerStreaming<P>,
  authorize: Authorize<P> | undefined,
  env: HandlerEnvironment<P>,
): handleServerStreamingCall<Buffer, Buffer> {
  const { requestDeserialize, responseSerialize, path } = methodDefinition(method);
  return (call) => {
    const answer = async (): Promise<void> => {
      const stop = new AbortController();
      const caller = open(call, authorize, env, (reason) => stop.abort(reason));
      try {
        const request = requestDeserialize(call.request);
        const messages = handler(request, caller);
        await pump(messages, call, {
          serialize: responseSerialize,
          beforeFirst: () => caller.flushHeader(),
          stop: stop.signal,
          stalledMs: env.limits.stalledStreamMs,
          clock: env.clock,
        });
      } finally {
        close(caller, env);
      }
    };
    void answer().then(
      () => call.end(),
      // This is how grpc-js wants to be told the status of a stream.
      (error: unknown) => call.emit("error", failure(error, path, env)),
    );
  };
}

function open<P>(
  call: ServerCall,
  authorize: Authorize<P> | undefined,
  env: HandlerEnvironment<P>,
  onLeft: ((reason: NsmError) => void) | undefined,
): CallInProgress<P> {
  const peer = env.peerOf(call.getPeer());
  if (peer === undefined) throw new NsmError("UNAVAILABLE", "session-closed", "the session has ended");
  checkMetadata(call.metadata);
  if (authorize && !authorize(peer))
    throw new NsmError("PERMISSION_DENIED", "peer-refused", `${env.nameOf(peer)} may not call this service`);
  const caller = new CallInProgress(call, peer, env.nameOf(peer), onLeft);
  // A process that was stopped finds calls that nobody waits for any more, before it hears that they were cancelled.
  if (caller.deadlineMs !== undefined && env.clock.now() >= caller.deadlineMs)
    throw new NsmError("DEADLINE_EXCEEDED", "deadline-exceeded", "the caller's deadline has passed");
  env.calls.add(caller);
  return caller;
}

function close<P>(caller: CallInProgress<P>, env: HandlerEnvironment<P>): void {
  caller.flushHeader();
  caller.finish();
  env.calls.delete(caller);
}

function checkMetadata(metadata: Metadata): void {
  const entries = Object.entries(metadata.toHttp2Headers());
  checkMetadataLimits(
    entries.map(([key, values = []]) => [key, Array.isArray(values) ? values : [String(values)]]),
  );
}

/** What the handler threw as a status. Only what is no NsmError is a surprise worth a line in the log. */
function failure(err: unknown, method: string, { log }: Pick<HandlerEnvironment, "log">) {
  if (!(err instanceof NsmError)) log.error({ err, method }, "handler failed");
  return statusOf(err);
}
