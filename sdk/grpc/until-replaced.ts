/** Streams of readers that open them again anyway. */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { abortWith } from "../abort-with.ts";
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
  let isReplaced = false;
  using end = abortWith(context.signal);
  try {
    yield* pool.stream(target, method, request, {
      ...context,
      signal: end.signal,
      onReplaced() {
        isReplaced = true;
        end.abort();
      },
    });
  } catch (error) {
    if (!isReplaced || context.signal?.aborted === true) throw error;
  }
}
