/**
 * Between grpc-js and plain async functions: a unary method is a function to a promise, a stream is an async iterable, a
 * cancelled call is an aborted signal. One pair of adapters for every service, on both sides.
 *
 * Methods whose *requests* stream are not supported; the mesh serves and calls none.
 */
import type { DescMessage, DescMethod, DescService, MessageShape } from "@bufbuild/protobuf";
import type {
  Client,
  Metadata,
  ServerUnaryCall,
  ServerWritableStream,
  StatusObject,
  UntypedServiceImplementation,
  sendUnaryData,
} from "@grpc/grpc-js";
import { methodDefinition } from "./service.ts";
import type { Calls, TypedService } from "./service.ts";

/** What arrives with a call. */
export interface Incoming {
  readonly metadata: Metadata;
  /** `remoteAddress` of the connection: the key that names it. */
  readonly connection: string;
  /** Milliseconds since 1970; undefined when the caller set none. */
  readonly deadlineMs: number | undefined;
  /** Aborted when the caller cancels, its deadline passes, its connection breaks, and when the call is over. */
  readonly signal: AbortSignal;
  /** `/package.Service/Method` */
  readonly method: string;
}

/** What goes with a call. */
export interface Outgoing {
  readonly metadata: Metadata;
  readonly signal: AbortSignal;
  /** Milliseconds since 1970; undefined = none, for streams that stay open. */
  readonly deadlineMs: number | undefined;
}

// Which message a method carries is checked where its handler or stub is typed; in here they are all alike.
type UnaryCall = ServerUnaryCall<unknown, unknown>;
type StreamingCall = ServerWritableStream<unknown, unknown>;

/**
 * Handlers for `Server.addService`. `open` makes the context of one call, and may throw to refuse it; `toStatus` makes what the
 * caller sees of anything thrown.
 */
export function implementation<S extends TypedService, C>(
  service: DescService & S,
  calls: Calls<S, C>,
  open: (incoming: Incoming) => C,
  toStatus: (error: unknown) => Partial<StatusObject>,
): UntypedServiceImplementation {
  const handlers = new Map<string, unknown>(Object.entries(calls));
  return Object.fromEntries(
    service.methods.map((method) => {
      const handler = handlers.get(method.localName);
      if (typeof handler !== "function") throw new TypeError(`no handler for ${method.name}`);
      const invoke = (call: UnaryCall | StreamingCall, signal: AbortSignal): unknown =>
        Reflect.apply(handler, undefined, [call.request, open(incomingOf(call, signal))]);
      const unary = (call: UnaryCall, answer: sendUnaryData<unknown>) => {
        const respond = async (signal: AbortSignal) => answer(null, await invoke(call, signal));
        void serve(call, respond, (error) => answer(toStatus(error)));
      };
      const streaming = (call: StreamingCall) => {
        const respond = (signal: AbortSignal) => writeAll(call, invoke(call, signal), signal);
        void serve(call, respond, (error) => call.emit("error", toStatus(error)));
      };
      return [method.localName, isStreaming(method) ? streaming : unary];
    }),
  );
}

async function serve(
  call: UnaryCall | StreamingCall,
  respond: (signal: AbortSignal) => Promise<void>,
  refuse: (error: unknown) => void,
): Promise<void> {
  const controller = new AbortController();
  call.once("cancelled", () => controller.abort(new Error("the caller cancelled")));
  try {
    await respond(controller.signal);
  } catch (error) {
    refuse(error);
  } finally {
    controller.abort(new Error("the call is over"));
  }
}

function incomingOf(call: UnaryCall | StreamingCall, signal: AbortSignal): Incoming {
  const deadlineMs = Number(call.getDeadline());
  return {
    metadata: call.metadata,
    connection: call.getPeer(),
    deadlineMs: Number.isFinite(deadlineMs) ? deadlineMs : undefined,
    signal,
    method: call.getPath(),
  };
}

async function writeAll(call: StreamingCall, messages: unknown, signal: AbortSignal): Promise<void> {
  if (!isAsyncIterable(messages)) throw new TypeError("a streaming handler must return an async iterable");
  for await (const message of messages) {
    if (signal.aborted) break;
    if (!call.write(message)) await drained(call, signal);
  }
  call.end();
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}

function drained(call: StreamingCall, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      call.removeListener("drain", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    call.once("drain", done);
    signal.addEventListener("abort", done, { once: true });
  });
}

/**
 * The methods of a service as functions; `open` makes what goes with a call from the caller's context, `toError` what
 * is thrown from whatever grpc-js reports.
 */
export function stub<S extends TypedService, C>(
  client: Client,
  service: DescService & S,
  toError: (status: unknown) => Error,
  open: (ctx: C) => Outgoing,
): Calls<S, C> {
  const entries = service.methods.map((method) => {
    const call = isStreaming(method) ? callStreaming : callUnary;
    return [
      method.localName,
      (request: MessageShape<DescMessage>, ctx: C) => call(client, method, request, open(ctx), toError),
    ] as const;
  });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- keys and shapes were made from the same descriptor
  return Object.fromEntries(entries) as unknown as Calls<S, C>;
}

function callUnary(
  client: Client,
  method: DescMethod,
  request: MessageShape<DescMessage>,
  { metadata, signal, deadlineMs }: Outgoing,
  toError: (status: unknown) => Error,
): Promise<unknown> {
  const { path, requestSerialize, responseDeserialize } = methodDefinition(method);
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const options = { ...(deadlineMs !== undefined && { deadline: deadlineMs }) };
    const onAbort = () => call.cancel();
    const call = client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadata,
      options,
      (error, response) => {
        signal.removeEventListener("abort", onAbort);
        if (response !== undefined) resolve(response);
        else reject(toError(error));
      },
    );
    signal.addEventListener("abort", onAbort, { once: true });
  });
}

async function* callStreaming(
  client: Client,
  method: DescMethod,
  request: MessageShape<DescMessage>,
  { metadata, signal, deadlineMs }: Outgoing,
  toError: (status: unknown) => Error,
): AsyncGenerator {
  const { path, requestSerialize, responseDeserialize } = methodDefinition(method);
  signal.throwIfAborted();
  const options = { ...(deadlineMs !== undefined && { deadline: deadlineMs }) };
  const call = client.makeServerStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    request,
    metadata,
    options,
  );
  // The iterator below reports errors; this one is for an error that comes after the reader has left.
  call.on("error", () => undefined);
  const onAbort = () => call.cancel();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    // A stream of grpc-js is an iterable of `any`.
    const messages: AsyncIterable<unknown> = call;
    for await (const message of messages) yield message;
  } catch (error) {
    throw toError(error);
  } finally {
    signal.removeEventListener("abort", onAbort);
    call.cancel();
  }
}

function isStreaming({ methodKind, name }: DescMethod): boolean {
  if (methodKind === "unary" || methodKind === "server_streaming") return methodKind === "server_streaming";
  throw new TypeError(`${name}: streaming requests are not supported`);
}
