/**
 * gRPC services from protobuf-es descriptors: definitions for grpc-js, and the types of calls and handlers.
 *
 * Bytes are made and read by `sdk/message.ts`, which keeps unknown fields, so that a relay loses nothing.
 */
import type { DescMessage, DescMethod, MessageShape } from "@bufbuild/protobuf";
import type { MethodDefinition } from "@grpc/grpc-js";
import { decodeMessage, encodeMessage } from "../message.ts";

/** A method descriptor with the message types that it carries. */
export type Method<I extends DescMessage, O extends DescMessage> = DescMethod & {
  readonly input: I;
  readonly output: O;
};

/** What grpc-js needs to know of one method, typed by its messages. */
export function methodDefinition<I extends DescMessage, O extends DescMessage>(
  method: Method<I, O>,
): MethodDefinition<MessageShape<I>, MessageShape<O>> {
  const { methodKind: kind, input, output } = method;
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    originalName: method.localName,
    requestStream: kind === "client_streaming" || kind === "bidi_streaming",
    responseStream: kind === "server_streaming" || kind === "bidi_streaming",
    requestSerialize: (message) => encodeMessage(input, message),
    requestDeserialize: (bytes) => decodeMessage(input, bytes),
    responseSerialize: (message) => encodeMessage(output, message),
    responseDeserialize: (bytes) => decodeMessage(output, bytes),
  };
}

/** A generated service (`GenService<…>`), seen only by its methods' shapes. */
export interface TypedService {
  readonly method: Readonly<Record<string, Pick<DescMethod, "input" | "output" | "methodKind">>>;
}

type Request<M> = M extends { input: infer I extends DescMessage } ? MessageShape<I> : never;
type Response<M> = M extends { output: infer O extends DescMessage } ? MessageShape<O> : never;

/** One method as a function; `C` is what comes with the request (peer, metadata, signal). */
export type Call<M, C> = M extends { methodKind: "unary" }
  ? (request: Request<M>, ctx: C) => Promise<Response<M>>
  : M extends { methodKind: "server_streaming" }
    ? (request: Request<M>, ctx: C) => AsyncIterable<Response<M>>
    : M extends { methodKind: "client_streaming" }
      ? (requests: AsyncIterable<Request<M>>, ctx: C) => Promise<Response<M>>
      : (requests: AsyncIterable<Request<M>>, ctx: C) => AsyncIterable<Response<M>>;

/** The methods of a service as functions. */
export type Calls<S extends TypedService, C> = { readonly [K in keyof S["method"]]: Call<S["method"][K], C> };
