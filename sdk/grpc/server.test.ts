/** The serving side: who is let in, what is refused, and what handlers are told. */
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import {
  ConnectionEventSchema,
  ConnectionSchema,
  MonitorConnection,
  MonitorScopeSelectorSchema,
} from "../../api/gen/connection_pb.js";
import type { ConnectionEvent } from "../../api/gen/connection_pb.js";
import {
  Health,
  HealthCheckRequestSchema,
  HealthCheckResponse_ServingStatus as Serving,
} from "../../api/gen/health_pb.js";
import { NetworkService, NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import { descriptorCount, descriptorsFellTo, failureOf, openBed, until } from "../../test/support/grpc.ts";
import type { Bed } from "../../test/support/grpc.ts";
import { NsmError } from "../errors.ts";
import { Limits } from "../limits.ts";
import type { SessionPool } from "./sessions.ts";

const request = create(NetworkServiceRequestSchema);
const { request: Request, close: Close } = NetworkService.method;
const { monitorConnections: Monitor } = MonitorConnection.method;

function ask(bed: Bed, pool: SessionPool, metadata: Record<string, string> = {}) {
  return pool.unary({ url: bed.url() }, Request, request, { metadata: () => metadata, timeoutMs: 5000 });
}

test("a handler knows the TLS identity and the process of its caller", async () => {
  await using bed = await openBed();
  let alive: boolean | undefined;
  const server = await bed.serve({
    listen: [bed.url(), "tcp://127.0.0.1:0"],
    service: {
      request: (_, { peer }) => {
        if (peer.process) alive = peer.process.isAlive();
        const { spiffeId, transport, process } = peer;
        return Promise.resolve(
          create(ConnectionSchema, {
            id: `${spiffeId} ${transport} ${process?.pid} ${process?.uid} ${process?.gid}`,
          }),
        );
      },
    },
  });
  const pool = bed.pool(await bed.source("/client"));
  const answers = await Promise.all(
    server.addresses.map(async (url) => (await pool.unary({ url }, Request, request)).response.id),
  );
  const me = `${process.pid} ${process.getuid?.()} ${process.getgid?.()}`;
  expect(answers).toEqual([
    `spiffe://example.org/client unix ${me}`,
    "spiffe://example.org/client tcp undefined undefined undefined",
  ]);
  expect(alive).toBe(true);
});

test("headers, metadata and deadlines travel both ways", async () => {
  await using bed = await openBed();
  await bed.serve({
    service: {
      request: (_, caller) => {
        caller.sendHeader({ path: "answered" });
        const left = (caller.deadlineMs ?? 0) - Date.now();
        const id = `${caller.metadata.get("path").join()} ${left > 4000 && left <= 5000}`;
        return Promise.resolve(create(ConnectionSchema, { id }));
      },
      close: (_, caller) => {
        caller.sendHeader({ path: "refused" });
        return Promise.reject(new NsmError("NOT_FOUND", "no-such-connection", "connection € is not known"));
      },
    },
  });
  const pool = bed.pool(await bed.source("/client"));
  const { response, header } = await ask(bed, pool, { path: "asked" });
  expect(response.id).toBe("asked true");
  expect(header.get("path")).toEqual(["answered"]);
  const failure = await failureOf(pool.unary({ url: bed.url() }, Close, create(ConnectionSchema)));
  expect(failure).toMatchObject({
    code: "NOT_FOUND",
    reason: "no-such-connection",
    message: "connection € is not known",
  });
});

test("what a handler throws by mistake is an internal error without its text, and ends nothing", async () => {
  await using bed = await openBed();
  const odd = new NsmError("UNAVAILABLE", "odd", `half a pair \ud800 ${"x".repeat(100_000)}`);
  const thrown: unknown[] = [new TypeError("secret"), "text", undefined, odd];
  let next = 0;
  const fail = () => {
    throw thrown[next++ % thrown.length];
  };
  await bed.serve({
    service: { request: fail, close: () => Promise.resolve().then(fail) },
    async *monitor() {
      yield create(ConnectionEventSchema);
      fail();
    },
  });
  const pool = bed.pool(await bed.source("/client"));
  const calls = [
    () => ask(bed, pool),
    () => pool.unary({ url: bed.url() }, Close, create(ConnectionSchema)),
    async () => {
      for await (const event of pool.stream({ url: bed.url() }, Monitor, create(MonitorScopeSelectorSchema)))
        expect(event.type).toBe(0);
    },
  ];
  for (const call of [...calls, ...calls, ...calls, ...calls]) {
    const failure = await failureOf(call());
    const isOdd = thrown[(next - 1) % thrown.length] === odd;
    expect(failure.code).toBe(isOdd ? "UNAVAILABLE" : "INTERNAL");
    expect(failure.message.length).toBeLessThan(3000);
    expect(failure.message).not.toContain("secret");
  }
});

test("messages and metadata over the limits are refused with the right code, and the session goes on", async () => {
  await using bed = await openBed();
  await bed.serve();
  const pool = bed.pool(await bed.source("/client"));
  const big = create(NetworkServiceRequestSchema, { connection: { id: "x".repeat(Limits.messageBytes) } });
  const tooLarge = failureOf(pool.unary({ url: bed.url() }, Request, big));
  expect((await tooLarge).code).toBe("RESOURCE_EXHAUSTED");
  expect(await failureOf(ask(bed, pool, { a: "x".repeat(33_000) }))).toMatchObject({
    code: "INVALID_ARGUMENT",
  });
  const many = Object.fromEntries(Array.from({ length: 70 }, (_, i) => [`k${i}`, "v"]));
  expect(await failureOf(ask(bed, pool, many))).toMatchObject({ code: "INVALID_ARGUMENT" });
  expect((await ask(bed, pool)).response.id).toBe("spiffe://example.org/client");
});

test("a handler is told when its caller leaves and when its deadline passes", async () => {
  await using bed = await openBed();
  const reasons: unknown[] = [];
  let started = 0;
  await bed.serve({
    service: {
      request: (_, { signal }) => {
        started++;
        return new Promise(() => signal.addEventListener("abort", () => reasons.push(signal.reason)));
      },
    },
  });
  const pool = bed.pool(await bed.source("/client"));
  const leave = new AbortController();
  const left = failureOf(pool.unary({ url: bed.url() }, Request, request, { signal: leave.signal }));
  await until("the handler", () => started === 1);
  leave.abort();
  await left;
  await until("the signal", () => reasons.length === 1);
  await failureOf(pool.unary({ url: bed.url() }, Request, request, { timeoutMs: 100 }));
  await until("the signal", () => reasons.length === 2);
  // The peer's cancellation may overtake the deadline that it shares with us.
  expect(reasons[0]).toMatchObject({ code: "CANCELLED", reason: "caller-left" });
  expect(reasons[1]).toBeInstanceOf(NsmError);
});

test("a stream ends with its reader, whatever its handler waits for, and waits for a slow one", async () => {
  await using bed = await openBed();
  const returned: string[] = [];
  let made = 0;
  let isHanging = false;
  const endless: AsyncIterable<ConnectionEvent> = {
    [Symbol.asyncIterator]: () => ({
      next: () => {
        made++;
        const value = create(ConnectionEventSchema, {
          connections: { a: create(ConnectionSchema, { id: "x".repeat(10_000) }) },
        });
        return Promise.resolve({ value, done: false });
      },
      return: () => {
        returned.push("endless");
        return Promise.resolve({ value: undefined, done: true });
      },
    }),
  };
  const hanging: AsyncIterable<ConnectionEvent> = {
    [Symbol.asyncIterator]: () => ({
      next: () => {
        isHanging = true;
        return new Promise(() => undefined);
      },
      return: () => {
        returned.push("hanging");
        return Promise.resolve({ value: undefined, done: true });
      },
    }),
  };
  await bed.serve({
    monitor: ({ pathSegments }) => (pathSegments.length > 0 ? hanging : endless),
    limits: { stalledStreamMs: 200 },
  });
  const pool = bed.pool(await bed.source("/client"));
  const open = (selector: Parameters<typeof create<typeof MonitorScopeSelectorSchema>>[1]) =>
    pool.stream({ url: bed.url() }, Monitor, create(MonitorScopeSelectorSchema, selector));

  const slow = open({});
  await slow.next();
  // It takes no more: the server must stop making messages, and give up after a while.
  await until("giving up", () => returned.length === 1);
  expect(made).toBeLessThan(200);
  await slow.return();

  const leave = new AbortController();
  const hung = pool.stream(
    { url: bed.url() },
    Monitor,
    create(MonitorScopeSelectorSchema, { pathSegments: [{}] }),
    { signal: leave.signal },
  );
  const waiting = failureOf(hung.next());
  await until("the handler", () => isHanging);
  leave.abort();
  expect((await waiting).code).toBe("CANCELLED");
  await until("the handler's return", () => returned.includes("hanging"));
});

test("the health service tells what is registered, and the server as a whole", async () => {
  await using bed = await openBed();
  await bed.serve();
  const pool = bed.pool(await bed.source("/client"));
  const check = (service: string) =>
    pool.unary({ url: bed.url() }, Health.method.check, create(HealthCheckRequestSchema, { service }));
  for (const name of ["", "networkservice.NetworkService", "connection.MonitorConnection"])
    expect((await check(name)).response.status).toBe(Serving.SERVING);
  expect((await failureOf(check("registry.Nothing"))).code).toBe("NOT_FOUND");
  const watch = (service: string) =>
    pool.stream({ url: bed.url() }, Health.method.watch, create(HealthCheckRequestSchema, { service }));
  const known = watch("");
  const unknown = watch("registry.Nothing");
  expect((await known.next()).value?.status).toBe(Serving.SERVING);
  expect((await unknown.next()).value?.status).toBe(Serving.SERVICE_UNKNOWN);
  await Promise.all([known.return(), unknown.return()]);
});

test("listeners and services refuse whom they are told to", async () => {
  await using bed = await openBed();
  const onlyClients = (peer: { spiffeId: string }) => peer.spiffeId.endsWith("/client");
  await bed.serve({
    listen: [bed.url(), { url: bed.url("closed"), authorize: onlyClients }],
    authorizeMonitor: onlyClients,
  });
  const pool = bed.pool(await bed.source("/stranger"));
  expect((await ask(bed, pool)).response.id).toBe("spiffe://example.org/stranger");
  const stream = pool.stream({ url: bed.url() }, Monitor, create(MonitorScopeSelectorSchema));
  expect((await failureOf(stream.next())).code).toBe("PERMISSION_DENIED");
  const failure = await failureOf(pool.unary({ url: bed.url("closed") }, Request, request));
  expect(failure).toMatchObject({ code: "UNAVAILABLE", message: expect.stringContaining("may not accept") });
});

test("a server that stops refuses new calls, ends streams, lets unary calls finish for a while, and leaves nothing", async () => {
  await using bed = await openBed();
  const pool = bed.pool(await bed.source("/client"));
  const before = await descriptorCount();
  const ends: unknown[] = [];
  let release: () => void = () => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  let running = 0;
  const server = await bed.serve({
    listen: [bed.url(), "tcp://127.0.0.1:0"],
    service: {
      request: async (_, { signal }) => {
        running++;
        await released;
        signal.throwIfAborted();
        return create(ConnectionSchema, { id: "finished" });
      },
      close: (_, { signal }) => {
        running++;
        return new Promise((_, reject) =>
          signal.addEventListener("abort", () => reject(new NsmError("ABORTED", "told-to-stop", "stopped"))),
        );
      },
    },
    monitor: (_, { signal }) => hang(() => signal, ends),
  });
  const target = { url: bed.url() };
  const finishing = pool.unary(target, Request, request);
  const hopeless = failureOf(pool.unary(target, Close, create(ConnectionSchema)));
  const stream = pool.stream(target, Monitor, create(MonitorScopeSelectorSchema));
  const watched = failureOf(stream.next());
  await until("the calls", () => running === 2 && ends.length === 1);

  const startMs = performance.now();
  const closing = [server[Symbol.asyncDispose](), server[Symbol.asyncDispose]()];
  expect(await watched).toMatchObject({ code: "UNAVAILABLE", reason: "draining" });
  expect((await failureOf(pool.unary(target, Request, request))).code).toBe("UNAVAILABLE");
  release();
  expect((await finishing).response.id).toBe("finished");
  expect(["UNAVAILABLE", "ABORTED"]).toContain((await hopeless).code);
  await Promise.all(closing);
  expect(performance.now() - startMs).toBeLessThan(10_000); // without it there are 30 s for a call
  await pool[Symbol.asyncDispose]();
  expect(await descriptorsFellTo(before)).toBe(true);
});

/** Says that it runs, and yields nothing. */
function hang(signalOf: () => AbortSignal, started: unknown[]): AsyncIterable<ConnectionEvent> {
  return {
    [Symbol.asyncIterator]: () => ({
      async next() {
        started.push("started");
        await new Promise((resolve) => signalOf().addEventListener("abort", resolve, { once: true }));
        return { value: undefined, done: true };
      },
    }),
  };
}
