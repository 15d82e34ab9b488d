import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionEventSchema, MonitorConnection } from "../../api/gen/connection_pb.js";
import { failureOf, openBed, until } from "../../test/support/grpc.ts";
import { NsmError } from "../errors.ts";
import { streamUntilReplaced } from "./until-replaced.ts";

const method = MonitorConnection.method.monitorConnections;
const selector = create(method.input);

/** A server whose streams say one thing and then hang; with `fail` they end with its error. */
async function openStreams(fail?: Promise<never>) {
  await using stack = new AsyncDisposableStack();
  const bed = stack.use(await openBed());
  const source = await bed.source("/client");
  let open = 0;
  await bed.serve({
    async *monitor(_, { signal }) {
      open++;
      yield create(ConnectionEventSchema);
      const left = new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      await Promise.race([left, fail ?? left]).finally(() => open--);
    },
  });
  const pool = bed.pool(source);
  const stop = new AbortController();
  const context = { signal: stop.signal };
  const stream = streamUntilReplaced(pool, { url: bed.url() }, method, selector, context);
  expect((await stream.next()).done).toBe(false);
  const resources = stack.move();
  return {
    source,
    stop,
    stream,
    open: () => open,
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

test("the stream of a replaced session ends without an error, at both sides", async () => {
  await using bed = await openStreams();
  await bed.source.rotate();
  expect((await bed.stream.next()).done).toBe(true);
  await until("its end at the server", () => bed.open() === 0);
});

test("a reader that stops, and a server that fails, are errors as ever", async () => {
  await using stopped = await openStreams();
  const reason = new NsmError("CANCELLED", "enough", "the reader stops");
  stopped.stop.abort(reason);
  expect(await failureOf(stopped.stream.next())).toBe(reason);

  const failure = Promise.withResolvers<never>();
  await using failing = await openStreams(failure.promise);
  failure.reject(new NsmError("ABORTED", "reader-too-slow", "too slow"));
  expect(await failureOf(failing.stream.next())).toMatchObject({ reason: "reader-too-slow" });
});
