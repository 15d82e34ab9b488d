import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import {
  JWTSVIDRequestSchema,
  JWTSVIDResponseSchema,
  SpiffeWorkloadAPI,
  X509BundlesRequestSchema,
  X509BundlesResponseSchema,
} from "../../api/gen/workload_pb.js";
import { NsmError } from "../errors.ts";
import { silentLogger } from "../log.ts";
import type { Caller } from "./caller.ts";
import type { CallSettings } from "./calls.ts";
import type { Handlers as HandlersOf } from "./handlers.ts";
import type { PeerProcess } from "./peer.ts";
import { createPlainClient, openPlainServer } from "./plain.ts";

let directory: string;
let path: string;
let stack: AsyncDisposableStack;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "plain-"));
  path = join(directory, "s");
  stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(directory, { recursive: true }));
});
afterEach(() => stack.disposeAsync());

type Handlers = HandlersOf<typeof SpiffeWorkloadAPI, PeerProcess>;
const { fetchJWTSVID, fetchX509Bundles, validateJWTSVID } = SpiffeWorkloadAPI.method;
const unused = () => Promise.reject(new NsmError("UNIMPLEMENTED", "unused", "not in this test"));
// oxlint-disable-next-line eslint/require-yield -- it refuses
async function* unusedStream(): AsyncGenerator<never> {
  await unused();
}

function serve(some: Partial<Handlers>): Promise<AsyncDisposable> {
  const handlers = {
    fetchX509SVID: unusedStream,
    fetchX509Bundles: unusedStream,
    fetchJWTBundles: unusedStream,
    fetchJWTSVID: unused,
    validateJWTSVID: unused,
    ...some,
  };
  return openPlainServer({ path, mode: 0o600, log: silentLogger }, (add) => add(SpiffeWorkloadAPI, handlers));
}

function client() {
  return stack.use(createPlainClient({ kind: "unix", path })).calls;
}

const call = (options: Partial<CallSettings> = {}): CallSettings => ({
  metadata: { "x-key": "value" },
  signal: new AbortController().signal,
  deadlineMs: undefined,
  onReplaced: undefined,
  ...options,
});
const request = create(JWTSVIDRequestSchema);

test("a handler knows the calling process and the metadata", async () => {
  let seen: Caller<PeerProcess> | undefined;
  stack.use(
    await serve({
      fetchJWTSVID: (_, call) => {
        seen = call;
        return Promise.resolve(create(JWTSVIDResponseSchema));
      },
    }),
  );
  await client().unary(fetchJWTSVID, request, call());
  expect(seen?.peer).toMatchObject({ pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
  expect(seen?.peer.isAlive()).toBe(true);
  expect(seen?.metadata.get("x-key")).toEqual(["value"]);
  expect(seen?.metadata.get("none")).toEqual([]);
});

test("errors travel with code and message; bugs do not show their text", async () => {
  const failures = [new NsmError("NOT_FOUND", "no-such", "no such thing"), new Error("secret")];
  stack.use(await serve({ fetchJWTSVID: () => Promise.reject(failures.shift() ?? new Error("none left")) }));
  const calls = client();
  await expect(calls.unary(fetchJWTSVID, request, call())).rejects.toMatchObject({
    code: "NOT_FOUND",
    message: "no such thing",
  });
  await expect(calls.unary(fetchJWTSVID, request, call())).rejects.toMatchObject({
    code: "INTERNAL",
    message: expect.not.stringContaining("secret"),
  });
  await expect(calls.unary(validateJWTSVID, create(validateJWTSVID.input), call())).rejects.toThrow(
    /not in this test/,
  );
});

test("nobody at the socket is UNAVAILABLE", async () => {
  await expect(client().unary(fetchJWTSVID, request, call())).rejects.toMatchObject({ code: "UNAVAILABLE" });
});

/** A stream of one message that then waits until it is cancelled, and tells. */
function waiting() {
  const cancelled = Promise.withResolvers<void>();
  const handler: Handlers["fetchX509Bundles"] = async function* (_, { signal }) {
    signal.addEventListener("abort", () => cancelled.resolve(), { once: true });
    yield create(X509BundlesResponseSchema);
    await cancelled.promise;
  };
  return { handler, cancelled: cancelled.promise };
}

test("a reader that stops reading cancels the handler", async () => {
  const { handler, cancelled } = waiting();
  stack.use(await serve({ fetchX509Bundles: handler }));
  const messages: unknown[] = [];
  for await (const message of client().stream(fetchX509Bundles, create(X509BundlesRequestSchema), call())) {
    messages.push(message);
    break;
  }
  await cancelled;
  expect(messages).toHaveLength(1);
});

test("an aborted signal ends a stream and a call with CANCELLED", async () => {
  const { handler, cancelled } = waiting();
  stack.use(await serve({ fetchX509Bundles: handler, fetchJWTSVID: () => new Promise(() => undefined) }));
  const controller = new AbortController();
  const calls = client();
  const stream = calls.stream(
    fetchX509Bundles,
    create(X509BundlesRequestSchema),
    call({ signal: controller.signal }),
  );
  const read = async () => {
    for await (const _ of stream) controller.abort();
  };
  await expect(read()).rejects.toMatchObject({ code: "CANCELLED" });
  await cancelled;
  const second = new AbortController();
  const unary = calls.unary(fetchJWTSVID, request, call({ signal: second.signal }));
  second.abort();
  await expect(unary).rejects.toMatchObject({ code: "CANCELLED" });
});

test("a deadline ends a call", async () => {
  stack.use(await serve({ fetchJWTSVID: () => new Promise(() => undefined) }));
  await expect(
    client().unary(fetchJWTSVID, request, call({ deadlineMs: Date.now() + 100 })),
  ).rejects.toMatchObject({
    code: "DEADLINE_EXCEEDED",
  });
});

test("stopping the server cancels its handlers and frees the path", async () => {
  const { handler, cancelled } = waiting();
  const server = await serve({ fetchX509Bundles: handler });
  const read = async () => {
    for await (const _ of client().stream(fetchX509Bundles, create(X509BundlesRequestSchema), call()))
      void server[Symbol.asyncDispose]();
  };
  await expect(read()).rejects.toBeInstanceOf(NsmError);
  await cancelled;
  stack.use(await serve({}));
});

test("one process cannot take all connections", async () => {
  stack.use(await serve({ fetchJWTSVID: () => Promise.resolve(create(JWTSVIDResponseSchema)) }));
  const sockets = Array.from({ length: 70 }, () => connect(path));
  stack.defer(() => sockets.forEach((socket) => socket.destroy()));
  let closed = 0;
  for (const socket of sockets) {
    socket.resume();
    socket.once("close", () => closed++);
    socket.on("error", () => undefined);
  }
  await vi.waitFor(() => expect(closed).toBe(6), { timeout: 5000 });
});
