/** What a handler gets beside the request: who calls, with which metadata, and for how long. */
import { Metadata } from "@grpc/grpc-js";
import type { ServerUnaryCall, ServerWritableStream } from "@grpc/grpc-js";
import { NsmError } from "../errors.ts";
import type { Peer } from "./peer.ts";

/** Request or response metadata; keys are lower case, values text. */
export interface Header {
  /** All values of a key in the order of the wire; empty when there is none. */
  get(key: string): readonly string[];
}

/** `P` is who calls: on plain sockets a process alone. */
export interface Caller<P = Peer> {
  readonly peer: P;
  readonly metadata: Header;
  /** Aborted with an NsmError when the caller leaves, its deadline passes, the server stops, and after the end of a stream. */
  readonly signal: AbortSignal;
  /** Wall clock, milliseconds since 1970; undefined when the caller set none. */
  readonly deadlineMs: number | undefined;
  /** Adds to the response's header, which goes out with the first message or the end. Later calls have no effect. */
  sendHeader(values: Readonly<Record<string, string>>): void;
}

/** One for all: the stack of an error costs more than many a call, and nobody looks at this one's. */
const CALL_ENDED = new NsmError("CANCELLED", "call-ended", "the call has ended");

export type ServerCall = ServerUnaryCall<Buffer, Buffer> | ServerWritableStream<Buffer, Buffer>;

/** One call in progress, seen from the code around the handler. */
export class CallInProgress<P> implements Caller<P> {
  readonly peer: P;
  readonly metadata: Header;
  readonly deadlineMs: number | undefined;
  readonly isStream: boolean;
  readonly #call: ServerCall;
  readonly #name: string;
  readonly #onLeft: ((reason: NsmError) => void) | undefined;
  #controller: AbortController | undefined;
  #left: NsmError | undefined;
  #isOver = false;
  #header: Metadata | undefined;

  /** `name` is the peer's, for messages. `onLeft`: for streams, which cannot be told from unary calls by what grpc-js gives; called at most once, before `finish`. */
  constructor(call: ServerCall, peer: P, name: string, onLeft: ((reason: NsmError) => void) | undefined) {
    const deadline = call.getDeadline();
    this.peer = peer;
    this.metadata = headerOf(call.metadata);
    this.deadlineMs = deadline === Infinity ? undefined : Number(deadline);
    this.isStream = onLeft !== undefined;
    this.#call = call;
    this.#name = name;
    this.#onLeft = onLeft;
    // grpc-js says so after the end of every call, too. Errors are made only where they matter: their stacks cost.
    call.once("cancelled", () => {
      if (!this.#isOver) this.leave(this.#whyCancelled());
    });
  }

  /** Made when it is asked for: most unary handlers are done before anybody could leave. */
  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    if (this.#left) this.#controller.abort(this.#left);
    return this.#controller.signal;
  }

  sendHeader(values: Readonly<Record<string, string>>): void {
    this.#header ??= new Metadata();
    for (const [key, value] of Object.entries(values)) this.#header.set(key, value);
  }

  /** Just before the first message or the status, so that they share a packet. */
  flushHeader(): void {
    if (this.#header) this.#call.sendMetadata(this.#header);
    this.#header = undefined;
  }

  /** Ends the handler's work for that reason; nothing after `finish`. */
  leave(reason: NsmError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#left = reason;
    this.#controller?.abort(reason);
    this.#onLeft?.(reason);
  }

  /** The handler is done: what happens from now on is no news to it. What a stream left behind may still want to know. */
  finish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.isStream) this.#controller?.abort(CALL_ENDED);
  }

  #whyCancelled(): NsmError {
    if (this.deadlineMs !== undefined && Date.now() >= this.deadlineMs)
      return new NsmError("DEADLINE_EXCEEDED", "deadline-exceeded", "the caller's deadline has passed");
    return new NsmError("CANCELLED", "caller-left", `${this.#name} has left the call`);
  }
}

export function headerOf(metadata: Metadata): Header {
  return { get: (key) => metadata.get(key).filter((value) => typeof value === "string") };
}
