/** The calls in progress on one channel: made, counted, and ended when their caller or their session ends. */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { Metadata } from "@grpc/grpc-js";
import type { CallOptions, Client, ClientReadableStream } from "@grpc/grpc-js";
import { NsmError } from "../errors.ts";
import { headerOf } from "./caller.ts";
import type { Header } from "./caller.ts";
import { methodDefinition } from "./service.ts";
import type { Method } from "./service.ts";
import { errorOfStatus } from "./status.ts";

/** How one call is made; all of it is known to be final. */
export interface CallSettings {
  readonly metadata: Readonly<Record<string, string>>;
  /** Wall clock, milliseconds since 1970. */
  readonly deadlineMs: number | undefined;
  /** Unary calls without a deadline: milliseconds that the server is told it has. Only `signal` ends the call here. */
  readonly toldMs?: number | undefined;
  readonly signal: AbortSignal | undefined;
  /** For streams: the session leaves; whoever needs the stream opens it again, on the next session. */
  readonly onReplaced: (() => void) | undefined;
}

/** A call in progress, as its session sees it. */
interface OpenCall {
  readonly onReplaced: (() => void) | undefined;
  /** Ends it with that error. */
  end(error: NsmError): void;
}

export class Calls {
  readonly #client: Client;
  readonly #url: string;
  readonly #onDone: () => void;
  readonly #open = new Set<OpenCall>();

  /** `onDone` is called after the end of each call; `url` is for messages. */
  constructor(client: Client, url: string, onDone: () => void) {
    this.#client = client;
    this.#url = url;
    this.#onDone = onDone;
  }

  get size(): number {
    return this.#open.size;
  }

  /** Ends all with that error. */
  endAll(error: NsmError): void {
    for (const call of this.#open) call.end(error);
  }

  /** Tells streams that their session is being replaced. */
  announceReplacement(): void {
    for (const call of this.#open) call.onReplaced?.();
  }

  /** The channel of a session must be ready. Throws the peer's error, or UNAVAILABLE, CANCELLED, DEADLINE_EXCEEDED. */
  unary<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageShape<I>,
    settings: CallSettings,
  ): Promise<{ readonly response: MessageShape<O>; readonly header: Header }> {
    const { path, requestSerialize, responseDeserialize } = methodDefinition(method);
    const metadata = metadataOf(settings.metadata);
    // As grpc-js does for a deadline that it keeps itself (gRPC over HTTP/2, "Timeout": eight digits at most).
    if (settings.toldMs !== undefined)
      metadata.set("grpc-timeout", `${Math.min(Math.max(Math.ceil(settings.toldMs), 1), 99_999_999)}m`);
    return new Promise((resolve, reject) => {
      let header: Header | undefined;
      const call = this.#client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        metadata,
        optionsOf(settings),
        (error, response) => {
          const failure = done();
          if (response === undefined) reject(failure ?? errorOfStatus(error, this.#url));
          else resolve({ response, header: header ?? headerOf(new Metadata()) });
        },
      );
      call.once("metadata", (received: Metadata) => (header = headerOf(received)));
      const done = this.#enter(call, settings);
    });
  }

  /** The channel of a session must be ready, the result must be read. Throws as `unary`; leaving the loop ends the call. */
  stream<I extends DescMessage, O extends DescMessage>(
    method: Method<I, O>,
    request: MessageShape<I>,
    settings: CallSettings,
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    const { path, requestSerialize, responseDeserialize } = methodDefinition(method);
    const call = this.#client.makeServerStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadataOf(settings.metadata),
      optionsOf(settings),
    );
    // `#read` sees errors; this is for one that comes after the reader has left.
    call.on("error", () => undefined);
    return this.#read(call, this.#enter(call, settings));
  }

  async *#read<T>(
    call: ClientReadableStream<T>,
    done: () => NsmError | undefined,
  ): AsyncGenerator<T, void, undefined> {
    try {
      const messages: AsyncIterable<T> = call;
      yield* messages;
    } catch (error) {
      throw done() ?? errorOfStatus(error, this.#url);
    } finally {
      done();
      call.cancel();
    }
  }

  /** Registers a call; the result takes it out again and tells with what it was ended here, if it was. */
  #enter(call: { cancel(): void }, settings: CallSettings): () => NsmError | undefined {
    const { signal, onReplaced } = settings;
    let failure: NsmError | undefined;
    const end = (error: NsmError) => {
      failure ??= error;
      call.cancel();
    };
    const onAbort = () => end(cancelled(signal));
    const entry: OpenCall = { onReplaced, end };
    this.#open.add(entry);
    signal?.addEventListener("abort", onAbort, { once: true });
    if (signal?.aborted) onAbort();
    return () => {
      signal?.removeEventListener("abort", onAbort);
      if (this.#open.delete(entry)) this.#onDone();
      return failure;
    };
  }
}

/** The error of a call whose signal was aborted: the signal's own reason where it is an NsmError. */
export function cancelled(signal: AbortSignal | undefined): NsmError {
  const reason: unknown = signal?.reason;
  if (reason instanceof NsmError) return reason;
  return new NsmError("CANCELLED", "cancelled", "the call was cancelled", reason);
}

function metadataOf(values: Readonly<Record<string, string>>): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(values)) metadata.set(key, value);
  return metadata;
}

function optionsOf({ deadlineMs }: CallSettings): CallOptions {
  return deadlineMs === undefined ? {} : { deadline: deadlineMs };
}
