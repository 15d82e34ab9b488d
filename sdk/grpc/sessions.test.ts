/** Both sides of a session: rotation, restart, an impostor, silent and dead servers. */
import { createHash } from "node:crypto";
import type { X509Certificate } from "node:crypto";
import { createServer } from "node:net";
import type { Socket } from "node:net";
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionEventSchema, ConnectionSchema, MonitorConnection } from "../../api/gen/connection_pb.js";
import type { ConnectionEvent } from "../../api/gen/connection_pb.js";
import { NetworkService, NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import { makeAuthority } from "../../test/support/certificates.ts";
import { descriptorCount, descriptorsFellTo, failureOf, openBed, until } from "../../test/support/grpc.ts";
import type { Bed, MonitorHandlers, ServiceHandlers } from "../../test/support/grpc.ts";
import { makeSource } from "../../test/support/identity.ts";
import { NsmError } from "../errors.ts";
import type { Peer } from "./peer.ts";
import type { CallContext, SessionPool, Target } from "./sessions.ts";

const request = create(NetworkServiceRequestSchema);
const selector = create(MonitorConnection.method.monitorConnections.input);

async function ask(pool: SessionPool, target: Target, context: CallContext = { timeoutMs: 5000 }) {
  return (await pool.unary(target, NetworkService.method.request, request, context)).response.id;
}

const fingerprint = (certificate: X509Certificate | undefined) =>
  createHash("sha256")
    .update(certificate?.raw ?? "")
    .digest("hex");

/** Answers with `ok` when the metadata names the certificate that this session showed, as a token's signature would. */
const provesSession: Partial<ServiceHandlers> = {
  request: (_, { peer, metadata }) => {
    const [signer] = metadata.get("signer");
    const id = signer === fingerprint(peer.certificate) ? "ok" : "signed with another key";
    return Promise.resolve(create(ConnectionSchema, { id }));
  },
};

test("rotation under load breaks no call, and metadata always fits the certificate shown", async () => {
  await using bed = await openBed();
  const serverSource = await bed.source("/server", 2000);
  const clientSource = await bed.source("/client", 2000);
  await bed.serve({ source: serverSource, service: provesSession });
  const pool = bed.pool(clientSource);
  const target = { url: bed.url() };

  const answers = new Map<string, number>();
  const generations = new Set<number>();
  const stop = new AbortController();
  const load = async () => {
    while (!stop.signal.aborted) {
      const answer = await ask(pool, target, {
        metadata: ({ own }) => {
          generations.add(own.generation);
          return { signer: fingerprint(own.svid.chain[0]) };
        },
      });
      answers.set(answer, (answers.get(answer) ?? 0) + 1);
    }
  };
  const workers = Array.from({ length: 8 }, load);
  // Certificates of 1 to 2 s (they have no milliseconds), replaced well before, for longer than two lives.
  for (let i = 0; i < 10; i++) {
    const roundMs = performance.now() + 400;
    const wanted = clientSource.current().generation;
    await until("calls on the newest identity", () => generations.has(wanted));
    await until("the next rotation", () => performance.now() > roundMs);
    await Promise.all([clientSource.rotate(), serverSource.rotate()]);
  }
  stop.abort();
  await Promise.all(workers);
  expect([...answers.keys()]).toEqual(["ok"]);
  expect(generations.size).toBeGreaterThanOrEqual(10);
  expect(answers.get("ok")).toBeGreaterThan(1000);
});

test("a session keeps the identity that it was made with, new ones show the newest", async () => {
  await using bed = await openBed();
  const serverSource = await bed.source("/server");
  await bed.serve({
    source: serverSource,
    service: {
      request: (_, { peer }) => Promise.resolve(create(ConnectionSchema, { id: `${peer.own.generation}` })),
    },
  });
  const first = bed.pool(await bed.source("/client"));
  const second = bed.pool(await bed.source("/client"));
  expect(await ask(first, { url: bed.url() })).toBe("1");
  await serverSource.rotate();
  expect(await ask(first, { url: bed.url() })).toBe("1");
  expect(await ask(second, { url: bed.url() })).toBe("2");
});

test("a session is replaced when half of what remained of the peer's certificate is over", async () => {
  await using bed = await openBed();
  const server = await bed.source("/server", 4000);
  await bed.serve({ source: server });
  const pool = bed.pool(await bed.source("/client"));
  const shown = async () =>
    fingerprint((await pool.connect({ url: bed.url() }, { timeoutMs: 5000 })).peerCertificate);
  const first = await shown();
  await server.rotate();
  expect(await shown()).toBe(first);
  await until("the new certificate", async () => (await shown()) !== first);
});

test("a stream is told when its session is replaced, and goes on until its reader has moved", async () => {
  await using bed = await openBed();
  const source = await bed.source("/client");
  const opened: string[] = [];
  await bed.serve({ monitor: untilAborted((peer) => opened.push(peer)) });
  const pool = bed.pool(source);
  let replaced = 0;
  const open = () =>
    pool.stream({ url: bed.url() }, MonitorConnection.method.monitorConnections, selector, {
      onReplaced: () => replaced++,
    });
  const old = open();
  expect((await old.next()).done).toBe(false);

  await source.rotate();
  await until("told to move", () => replaced === 1);
  const next = open();
  await next.next();
  expect(new Set(opened).size).toBe(2);
  await old.return();
  await next.return();
  expect(replaced).toBe(1);
});

test("the old session stays in use while the new identity is not accepted", async () => {
  await using bed = await openBed();
  const foreign = await makeAuthority("foreign.test");
  const source = await bed.source("/client");
  await bed.serve();
  const pool = bed.pool(source, { replaceRetryMs: 0 });
  expect(await ask(pool, { url: bed.url() })).toBe("spiffe://example.org/client");
  const good = source.current();
  source.push({ svid: (await foreign.issue("/client")).svid });
  for (let i = 0; i < 5; i++) expect(await ask(pool, { url: bed.url() })).toBe("spiffe://example.org/client");
  source.push({ svid: good.svid });
  expect(await ask(pool, { url: bed.url() })).toBe("spiffe://example.org/client");
});

test("a restarted server is reached with the first call after its return", async () => {
  await using bed = await openBed();
  const pool = bed.pool(await bed.source("/client"));
  const target = { url: bed.url() };
  const tookMs: number[] = [];
  for (let i = 0; i < 6; i++) {
    const server = await bed.serve();
    const startMs = performance.now();
    expect(await ask(pool, target)).toBe("spiffe://example.org/client");
    tookMs.push(performance.now() - startMs);
    await server[Symbol.asyncDispose]();
    expect(await failureOf(ask(pool, target))).toMatchObject({ code: "UNAVAILABLE", reason: "unreachable" });
  }
  // A back-off would begin with a second, each time after the first.
  expect(Math.min(...tookMs.slice(1))).toBeLessThan(1000);
});

test("a call in progress fails when its server ends, the next one is unreachable, at once", async () => {
  await using bed = await openBed();
  const server = await bed.serve({ service: { request: () => new Promise(() => undefined) } });
  const pool = bed.pool(await bed.source("/client"));
  const pending = failureOf(ask(pool, { url: bed.url() }));
  await until("the session", async () => (await pool.connect({ url: bed.url() })).peerId !== "");
  await server[Symbol.asyncDispose]();
  expect((await pending).code).toBe("UNAVAILABLE");
  const startMs = performance.now();
  const failure = await failureOf(ask(pool, { url: bed.url() }));
  expect(failure.message).toBe(
    `cannot reach ${bed.url()}: connect ENOENT ${bed.url().slice("unix://".length)}`,
  );
  // And not after the time for a handshake, which is 5 s.
  expect(performance.now() - startMs).toBeLessThan(4500);
});

test("a server that comes back as somebody else is refused where its id is expected", async () => {
  await using bed = await openBed();
  const pool = bed.pool(await bed.source("/client"));
  const target = { url: bed.url(), expect: (id: string) => id === "spiffe://example.org/server" };
  const server = await bed.serve();
  await ask(pool, target);
  await server[Symbol.asyncDispose]();
  let calls = 0;
  const impostor = await bed.serve({
    source: await bed.source("/impostor"),
    service: { request: () => Promise.resolve(create(ConnectionSchema, { id: `${++calls}` })) },
  });
  expect(await failureOf(ask(pool, target))).toMatchObject({
    code: "UNAVAILABLE",
    reason: "peer-refused",
    message: expect.stringContaining("spiffe://example.org/impostor"),
  });
  // Whoever does not care may share the url, but not lend the session to who does.
  expect(await ask(pool, { url: bed.url() })).toBe("1");
  expect(await failureOf(ask(pool, target))).toMatchObject({ reason: "peer-refused" });
  await impostor[Symbol.asyncDispose]();
  await bed.serve();
  expect(await ask(pool, target)).toBe("spiffe://example.org/client");
  expect(calls).toBe(1);
});

test("a call that is sent again after a broken connection reaches only the peer that it was made for", async () => {
  await using bed = await openBed();
  const pool = bed.pool(await bed.source("/client"));
  const server = await bed.serve();
  const target = { url: bed.url() };
  await ask(pool, target);
  // Both servers accept anybody; the metadata below was made for the first one.
  const made: string[] = [];
  const seen: string[] = [];
  const racing = Array.from({ length: 50 }, () =>
    ask(pool, target, {
      timeoutMs: 5000,
      metadata: ({ peerId }) => {
        made.push(peerId);
        return { audience: peerId };
      },
    }).catch((error: unknown) => error),
  );
  await server[Symbol.asyncDispose]();
  await bed.serve({
    source: await bed.source("/other"),
    service: {
      request: (_, { metadata }) => {
        seen.push(...metadata.get("audience"));
        return Promise.resolve(create(ConnectionSchema));
      },
    },
  });
  await Promise.all(racing);
  expect(made.length).toBeGreaterThan(0);
  expect(seen.filter((audience) => audience !== "spiffe://example.org/other")).toEqual([]);
});

test("a server that accepts and never speaks costs the call its deadline and leaves no socket", async () => {
  await using bed = await openBed();
  const accepted = new Set<Socket>();
  const silent = createServer((socket) => {
    accepted.add(socket);
    socket.once("close", () => accepted.delete(socket)).on("error", () => undefined);
    socket.resume();
  });
  await new Promise<void>((resolve) => silent.listen(bed.url().slice("unix://".length), resolve));
  await using _ = { [Symbol.asyncDispose]: () => new Promise<void>((done) => silent.close(() => done())) };
  const pool = bed.pool(await bed.source("/client"), { connectMs: 300 });
  expect((await failureOf(ask(pool, { url: bed.url() }, { timeoutMs: 50 }))).code).toBe("DEADLINE_EXCEEDED");
  expect(await failureOf(ask(pool, { url: bed.url() }))).toMatchObject({
    code: "UNAVAILABLE",
    message: expect.stringContaining("no session after 300 ms"),
  });
  await until("no socket", () => accepted.size === 0);
});

test("a call that hears late leaves its deadline to the server", async () => {
  await using bed = await openBed();
  await bed.serve({
    source: await bed.source("/server"),
    service: {
      async request(_, { signal, deadlineMs }) {
        const left = (deadlineMs ?? Infinity) - Date.now();
        await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
        throw new NsmError("ABORTED", "gave-up", left <= 300 ? "in time" : `had ${left} ms`);
      },
    },
  });
  const pool = bed.pool(await bed.source("/client"));
  const stop = new AbortController();
  const context = { timeoutMs: 300, hearsLate: true, signal: stop.signal };
  const { reason } = await failureOf(ask(pool, { url: bed.url() }, context));
  // Of the server's own making, whichever of its parts noticed first: this side kept no deadline.
  expect(["gave-up", "deadline-exceeded"]).toContain(reason);
});

test("a handler that never answers costs the call its deadline, and an aborted signal ends it with its reason", async () => {
  await using bed = await openBed();
  await bed.serve({ service: { request: () => new Promise(() => undefined) } });
  const pool = bed.pool(await bed.source("/client"));
  const target = { url: bed.url() };
  expect((await failureOf(ask(pool, target, { timeoutMs: 100 }))).code).toBe("DEADLINE_EXCEEDED");
  expect((await failureOf(ask(pool, target, { signal: AbortSignal.timeout(50) }))).code).toBe("CANCELLED");
  const reason = new NsmError("ABORTED", "pre-empted", "a Close came");
  expect(await failureOf(ask(pool, target, { signal: AbortSignal.abort(reason) }))).toBe(reason);
});

test("who is not who it claims is refused before a request is sent", async () => {
  await using bed = await openBed();
  const foreign = await makeAuthority("foreign.test");
  let calls = 0;
  const service: Partial<ServiceHandlers> = {
    request: () => Promise.resolve(create(ConnectionSchema, { id: `${++calls}` })),
  };
  await bed.serve({ source: await makeSource(foreign, "/server"), service });
  const pool = bed.pool(await bed.source("/client"));
  expect(await failureOf(ask(pool, { url: bed.url() }))).toMatchObject({
    code: "UNAVAILABLE",
    reason: "svid-unknown-trust-domain",
  });
  expect(calls).toBe(0);
});

test("a session without calls is closed after its time and made again", async () => {
  await using bed = await openBed();
  const peers: Peer[] = [];
  await bed.serve({
    service: {
      request: (_, { peer }) => {
        peers.push(peer);
        return Promise.resolve(create(ConnectionSchema));
      },
    },
  });
  const pool = bed.pool(await bed.source("/client"), { idleMs: 30 });
  await ask(pool, { url: bed.url() });
  await until("its end at the server", () => peers[0]?.process?.isAlive() === false);
  await ask(pool, { url: bed.url() });
  expect(peers[1]?.session).not.toBe(peers[0]?.session);
});

test("a server that ends sessions of a certain age breaks no call, and streams are told to move", async () => {
  await using bed = await openBed();
  const sessions = new Set<string>();
  let calls = 0;
  await bed.serve({
    limits: { maxAgeMs: 50, maxAgeGraceMs: 2000 },
    monitor: untilAborted((session) => sessions.add(session)),
  });
  const pool = bed.pool(await bed.source("/client"));
  const target = { url: bed.url() };
  let replaced = 0;
  const stream = pool.stream(target, MonitorConnection.method.monitorConnections, selector, {
    onReplaced: () => replaced++,
  });
  await stream.next();
  await until("the end of a few sessions", async () => {
    await Promise.all(Array.from({ length: 8 }, () => ask(pool, target)));
    calls += 8;
    return calls > 1000 && replaced === 1;
  });
  await stream.return();
  expect(sessions.size).toBe(1);
});

test("200 sessions, calls and streams leave no descriptor behind", async () => {
  await using bed = await openBed();
  await bed.serve({ monitor: untilAborted(() => undefined) });
  const round = async () => {
    const pool = bed.pool(await bed.source("/client"));
    const stream = pool.stream({ url: bed.url() }, MonitorConnection.method.monitorConnections, selector);
    await Promise.all([ask(pool, { url: bed.url() }), stream.next()]);
    await failureOf(ask(pool, { url: bed.url("nobody") }));
    await pool[Symbol.asyncDispose]();
    await stream.next().catch(() => undefined);
  };
  await round();
  await settledDescriptors();
  const before = await descriptorCount();
  for (let i = 0; i < 20; i++) await Promise.all(Array.from({ length: 10 }, round));
  expect(await descriptorsFellTo(before)).toBe(true);
}, 60_000);

async function settledDescriptors(): Promise<void> {
  let last = -1;
  await until("a steady count", async () => {
    const previous = last;
    last = await descriptorCount();
    return last === previous;
  });
}

function untilAborted(onOpen: (session: string) => void): MonitorHandlers["monitorConnections"] {
  return async function* (_, { peer, signal }): AsyncGenerator<ConnectionEvent> {
    onOpen(peer.session);
    yield create(ConnectionEventSchema);
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  };
}

test("disposing of a pool ends its calls and is idempotent", async () => {
  await using bed: Bed = await openBed();
  await bed.serve({ service: { request: () => new Promise(() => undefined) } });
  const pool = bed.pool(await bed.source("/client"));
  await pool.connect({ url: bed.url() });
  const pending = failureOf(ask(pool, { url: bed.url() }));
  await Promise.resolve();
  await Promise.all([pool[Symbol.asyncDispose](), pool[Symbol.asyncDispose]()]);
  expect(await pending).toMatchObject({ code: "UNAVAILABLE", reason: "session-closed" });
  expect(await failureOf(ask(pool, { url: bed.url() }))).toMatchObject({ reason: "session-closed" });
});
