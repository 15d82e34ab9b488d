/** Streams of readers that open them again anyway. */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import type { Method } from "./service.ts";
import type { CallContext, SessionPool, Target } from "./sessions.ts";

/**
 * A stream that ends, without an error, when its session is replaced: a certificate was renewed, here or there, and nothing has
 * happened to the peer. Throws as `pool.stream` otherwise.
 */
export async function* streamUntilReplaced<I extends DescMessage, O extends DescMessage>(
  pool: SessionPool,
  target: Target,
  method: Method<I, O>,
  request: MessageShape<I>,
  context: CallContext,
): AsyncGenerator<MessageShape<O>, void, undefined> {
  const replaced = new AbortController();
  const signals = [context.signal, replaced.signal].filter((signal) => signal !== undefined);
  try {
    yield* pool.stream(target, method, request, {
      ...context,
      signal: AbortSignal.any(signals),
      onReplaced: () => replaced.abort(),
    });
  } catch (error) {
    if (!replaced.signal.aborted || context.signal?.aborted === true) throw error;
  }
}
