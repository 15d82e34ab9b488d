/** A session that takes another one's place is made beside it, and has more time for that than one that somebody waits for. */
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { Socket } from "node:net";
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionEventSchema, ConnectionSchema, MonitorConnection } from "../../api/gen/connection_pb.js";
import { NetworkService, NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import { failureOf, openBed, until } from "../../test/support/grpc.ts";
import type { Bed } from "../../test/support/grpc.ts";
import type { SessionPool } from "./sessions.ts";

const CONNECT_MS = 300;
/** Of the server's certificates: it asks old sessions to go within a quarter of that. */
const LIFE_MS = 8000;
const request = create(NetworkServiceRequestSchema);
const { monitorConnections } = MonitorConnection.method;

/** Passes connections on to `port`; those that come while it holds are taken and hear nothing until it lets go. */
async function startRelay(port: number) {
  const taken: Socket[] = [];
  let held: (() => void)[] | undefined;
  const server = createServer((socket) => {
    taken.push(socket);
    socket.on("error", () => undefined);
    const pass = () => {
      const onward = connect(port, "127.0.0.1").on("error", () => undefined);
      socket.pipe(onward).pipe(socket);
      socket.once("close", () => onward.destroy());
      onward.once("close", () => socket.destroy());
    };
    if (held === undefined) pass();
    else held.push(pass);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  return {
    url: `tcp://127.0.0.1:${typeof address === "object" ? address?.port : ""}`,
    /** Connections so far, in order. */
    taken,
    hold: () => (held = []),
    letGo() {
      for (const pass of held?.splice(0) ?? []) pass();
      held = undefined;
    },
    [Symbol.dispose]() {
      for (const socket of taken) socket.destroy();
      server.close();
    },
  };
}

/** A server behind a relay that answers with the number of its identity, and a stream that ticks. */
async function openParts(bed: Bed, replaceConnectMs: number) {
  const source = await bed.source("/server", LIFE_MS);
  const server = await bed.serve({
    source,
    listen: ["tcp://127.0.0.1:0"],
    service: {
      request: (_, { peer }) =>
        Promise.resolve(create(ConnectionSchema, { id: `${peer.own.generation} ${peer.session}` })),
    },
    async *monitor(_, { signal }) {
      while (!signal.aborted) {
        yield create(ConnectionEventSchema);
        await passed(20);
      }
    },
  });
  const own = await bed.source("/client");
  const relay = await startRelay(Number(new URL(server.addresses[0] ?? "").port));
  const pool = bed.pool(own, { connectMs: CONNECT_MS, replaceConnectMs, replaceRetryMs: 0 });
  return { source, own, relay, pool, target: { url: relay.url } };
}

const passed = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function ask(pool: SessionPool, url: string): Promise<string> {
  const context = { timeoutMs: 30_000 };
  return (await pool.unary({ url }, NetworkService.method.request, request, context)).response.id;
}

/** The first session has as little time as any: on a busy machine it takes more than one. */
async function begin(pool: SessionPool, url: string): Promise<string> {
  const answers: string[] = [];
  await until("the first session", async () => {
    answers.push(await ask(pool, url).catch(() => ""));
    return answers.at(-1) !== "";
  });
  return answers.at(-1) ?? "";
}

test("a server's new identity: streams move when the next session is there, and calls wait for it, however long that takes", async () => {
  await using bed = await openBed();
  const { source, relay, pool, target } = await openParts(bed, 60_000);
  using _ = relay;
  expect(await begin(pool, relay.url)).toMatch(/^1 /);
  let isTold = false;
  const stream = pool.stream(target, monitorConnections, create(monitorConnections.input), {
    onReplaced: () => (isTold = true),
  });
  await stream.next();
  await passed(700); // younger sessions get no successor before somebody asks
  relay.hold();
  const before = relay.taken.length;
  await source.rotate();
  await until("the server asks to go, and the next session is begun", () => relay.taken.length > before);
  const answer = ask(pool, relay.url);
  await passed(3 * CONNECT_MS);
  expect(isTold).toBe(false);
  expect((await stream.next()).done).toBe(false);
  expect(relay.taken).toHaveLength(before + 1);
  relay.letGo();
  expect(await answer).toMatch(/^2 /);
  await until("the stream is told", () => isTold);
  await stream.return();
});

test("an own new identity: the old session is used until the next one is there, which is begun once", async () => {
  await using bed = await openBed();
  const { own, relay, pool } = await openParts(bed, 60_000);
  using _ = relay;
  const first = await begin(pool, relay.url);
  const before = relay.taken.length;
  relay.hold();
  await own.rotate();
  for (const endMs = performance.now() + 3 * CONNECT_MS; performance.now() < endMs; await passed(10))
    expect(await ask(pool, relay.url)).toBe(first);
  expect(relay.taken).toHaveLength(before + 1);
  relay.letGo();
  await until("the next session", async () => (await ask(pool, relay.url)) !== first);
  expect(relay.taken).toHaveLength(before + 1);
});

test("when the old session breaks meanwhile, the next one has no more time than any other", async () => {
  await using bed = await openBed();
  const { own, relay, pool } = await openParts(bed, 60_000);
  using _ = relay;
  await begin(pool, relay.url);
  const before = relay.taken.length;
  relay.hold();
  await own.rotate();
  await ask(pool, relay.url);
  await until("the next session is begun", () => relay.taken.length > before);
  relay.taken[before - 1]?.destroy();
  // Calls that were in the old one fail of that.
  const failures = new Set<string>();
  const isTooLate = (message: string) => message.includes(`no session after ${CONNECT_MS} ms`);
  await until("the break is noticed", async () => {
    failures.add((await failureOf(ask(pool, relay.url))).message);
    return [...failures].some(isTooLate);
  });
  expect([...failures].filter((message) => message.includes("deadline"))).toEqual([]);
});
