/** The resolver's sockets and those towards name servers, on the loopback interface. */
import { createSocket } from "node:dgram";
import type { RemoteInfo } from "node:dgram";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { expect, test } from "vitest";
import { answerTo, askedOf, queryFor, read } from "../../test/support/dns.ts";
import { systemClock } from "../clock.ts";
import { silentLogger } from "../log.ts";
import { createResolver } from "./resolver.ts";
import type { Resolver } from "./resolver.ts";
import { openDnsServer } from "./server.ts";
import { createUpstreams, framed, unframed } from "./upstream.ts";

const never = new AbortController().signal;

/** A name server on both transports of one port; `answer` gets each query and how it came. */
async function startNameServer(answer: (query: Buffer, transport: "udp" | "tcp") => Buffer | undefined) {
  const stack = new AsyncDisposableStack();
  const udp = createSocket("udp4");
  stack.defer(() => void udp.close());
  udp.on("message", (query: Buffer, from: RemoteInfo) => {
    const reply = answer(query, "udp");
    if (reply !== undefined) udp.send(reply, from.port, from.address);
  });
  udp.bind(0, "127.0.0.1");
  await once(udp, "listening");
  const { port } = udp.address();
  const tcp = createServer((socket) => {
    socket.on("data", (bytes: Buffer) => {
      const [query] = unframed(bytes);
      const reply = query === undefined ? undefined : answer(query, "tcp");
      if (reply === undefined) socket.destroy();
      else for (const byte of framed(reply)) socket.write(Buffer.of(byte)); // in pieces
    });
    socket.on("error", () => socket.destroy());
  });
  stack.defer(() => void tcp.close());
  tcp.listen(port, "127.0.0.1");
  await once(tcp, "listening");
  return { port, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

async function askOverUdp(port: number, query: Buffer): Promise<Buffer> {
  const socket = createSocket("udp4");
  try {
    socket.send(query, port, "127.0.0.1");
    const [reply]: Buffer[] = await once(socket, "message", { signal: AbortSignal.timeout(10_000) });
    return reply ?? Buffer.alloc(0);
  } finally {
    socket.close();
  }
}

async function askOverTcp(port: number, queries: readonly Buffer[]): Promise<Buffer[]> {
  const socket = connect({ host: "127.0.0.1", port });
  const replies: Buffer[] = [];
  let received: Buffer = Buffer.alloc(0);
  socket.write(Buffer.concat(queries.map(framed)));
  for await (const chunk of socket) {
    received = Buffer.concat([received, Buffer.from(chunk)]);
    for (let [message, rest] = unframed(received); message !== undefined; [message, rest] = unframed(rest)) {
      replies.push(message);
      received = rest;
    }
    if (replies.length === queries.length) break;
  }
  return replies;
}

/** Resolves as fast as its questions come, always with the same addresses. */
function fixed(addresses: readonly string[]): Resolver {
  return createResolver({
    clock: systemClock,
    groups: () => [{ servers: ["x"], domains: [], isOwn: true }],
    upstreams: { exchange: (_, query) => Promise.resolve(answerTo(query, { addresses })) },
  });
}

test("answers over UDP and TCP, several questions of a connection, and large answers over TCP alone", async () => {
  const addresses = Array.from({ length: 60 }, (_, i) => `10.0.0.${i}`);
  await using server = await openDnsServer({
    host: "127.0.0.1",
    port: 0,
    resolver: fixed(addresses),
    log: silentLogger,
  });
  expect(read(await askOverUdp(server.port, queryFor("a.b")))).toMatchObject({ id: 7, isTruncated: true });
  expect(read(await askOverUdp(server.port, queryFor("a.b", { udpBytes: 4096 }))).records).toHaveLength(60);
  const replies = await askOverTcp(server.port, [queryFor("a.b", { id: 1 }), queryFor("c.d", { id: 2 })]);
  expect(new Set(replies.map((reply) => read(reply).id))).toEqual(new Set([1, 2]));
  expect(replies.map((reply) => read(reply).records.length)).toEqual([60, 60]);
});

test("a port that is taken is the system's error, and nothing stays open", async () => {
  const options = { host: "127.0.0.1", port: 0, resolver: fixed([]), log: silentLogger };
  await using server = await openDnsServer(options);
  await expect(openDnsServer({ ...options, port: server.port })).rejects.toMatchObject({
    code: "EADDRINUSE",
  });
});

test("what is larger than a question ends the connection", async () => {
  const options = { host: "127.0.0.1", port: 0, resolver: fixed([]), log: silentLogger };
  await using server = await openDnsServer(options);
  const socket = connect({ host: "127.0.0.1", port: server.port });
  socket.on("error", () => undefined);
  socket.write(Buffer.concat([Buffer.of(0xff, 0xff), Buffer.alloc(8192)]));
  socket.resume();
  await once(socket, "close", { signal: AbortSignal.timeout(10_000) });
  expect(socket.destroyed).toBe(true);
});

test("a truncated answer is fetched by TCP; other answers, of the id or for other names, are ignored", async () => {
  const addresses = Array.from({ length: 60 }, (_, i) => `10.0.0.${i}`);
  await using nameServer = await startNameServer((query, transport) => {
    if (transport === "tcp") return answerTo(query, { addresses });
    const truncated = Buffer.from(answerTo(query, "noData"));
    truncated.writeUInt16BE(truncated.readUInt16BE(2) | 0x0200, 2);
    return truncated;
  });
  const upstreams = createUpstreams({ clock: systemClock, port: nameServer.port });
  const answer = await upstreams.exchange("127.0.0.1", queryFor("a.b"), never);
  expect(read(answer).records).toHaveLength(60);
});

test("a lost datagram is sent again; an answer for another name is not taken", async () => {
  let queries = 0;
  await using nameServer = await startNameServer((query) => {
    queries++;
    if (queries === 1)
      return answerTo(queryFor("evil.example", { id: query.readUInt16BE(0) }), { addresses: ["6.6.6.6"] });
    return answerTo(query, { addresses: ["1.2.3.4"] });
  });
  const upstreams = createUpstreams({ clock: systemClock, port: nameServer.port });
  const answer = await upstreams.exchange("127.0.0.1", queryFor("a.b"), never);
  expect(read(answer).records).toEqual(["a.b 1.2.3.4 60"]);
  expect(queries).toBe(2);
});

test("a server that nobody runs fails at once; one that hangs when the signal says so, and frees its place", async () => {
  const gone = await startNameServer(() => undefined);
  await gone[Symbol.asyncDispose]();
  const absent = createUpstreams({ clock: systemClock, port: gone.port });
  await expect(absent.exchange("127.0.0.1", queryFor("a.b"), never)).rejects.toMatchObject({
    reason: "dns-server-failed",
  });

  await using hanging = await startNameServer((query) =>
    askedOf(query).name === "ok" ? answerTo(query, { addresses: ["1.2.3.4"] }) : undefined,
  );
  const upstreams = createUpstreams({ clock: systemClock, port: hanging.port });
  const stop = new AbortController();
  const open = Array.from({ length: 256 }, (_, i) =>
    upstreams.exchange("127.0.0.1", queryFor(`n${i}`), stop.signal).catch((error: unknown) => error),
  );
  await expect(upstreams.exchange("127.0.0.1", queryFor("ok"), never)).rejects.toMatchObject({
    reason: "dns-busy",
  });
  stop.abort(new Error("enough"));
  expect(new Set(await Promise.all(open))).toEqual(new Set([stop.signal.reason]));
  expect(read(await upstreams.exchange("127.0.0.1", queryFor("ok"), never)).records).toHaveLength(1);
});

test("who asks over TCP and reads no answer is hung up on, before the answers fill the memory", async () => {
  const resolver: Resolver = {
    answer: () => Promise.resolve({ bytes: Buffer.alloc(60_000), query: undefined }),
    forget: () => undefined,
  };
  await using server = await openDnsServer({ host: "127.0.0.1", port: 0, resolver, log: silentLogger });
  const socket = connect({ host: "127.0.0.1", port: server.port });
  socket.on("error", () => undefined);
  socket.pause();
  const closed = new Promise((resolve) => socket.once("close", resolve));
  const queries = Buffer.concat(Array.from({ length: 100 }, () => framed(queryFor("a.example"))));
  const asking = setInterval(() => socket.write(queries), 1);
  try {
    await closed;
    expect(socket.destroyed).toBe(true);
  } finally {
    clearInterval(asking);
    socket.destroy();
  }
});
