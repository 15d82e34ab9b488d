/**
 * Callers with a good identity that abuse HTTP/2 (RFC 9113), and callers that never get as far: the abuser's session is cut or
 * costs nothing, and another client is served all the while.
 */
import { once } from "node:events";
import { connect as connectSocket } from "node:net";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { TLSSocket } from "node:tls";
import { create } from "@bufbuild/protobuf";
import { expect, onTestFinished, test } from "vitest";
import { NetworkService, NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import { descriptorCount, descriptorsFellTo, openBed, until } from "../support/grpc.ts";
import type { Bed } from "../support/grpc.ts";

const TYPE = { DATA: 0, HEADERS: 1, RST_STREAM: 3, SETTINGS: 4, PING: 6, WINDOW_UPDATE: 8, CONTINUATION: 9 };
const END_HEADERS = 4;
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const PATH = "/networkservice.NetworkService/Request";

/** RFC 9113, section 4.1. */
function frame(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** Literal header fields without indexing (RFC 7541, section 6.2.2). */
function headers(fields: Readonly<Record<string, string>>): Buffer {
  const text = (value: string) => {
    const bytes = Buffer.from(value);
    const length: number[] = [];
    if (bytes.length < 127) length.push(bytes.length);
    else {
      let rest = bytes.length - 127;
      length.push(127);
      for (; rest >= 128; rest = Math.floor(rest / 128)) length.push((rest % 128) + 128);
      length.push(rest);
    }
    return Buffer.concat([Buffer.from(length), bytes]);
  };
  return Buffer.concat(
    Object.entries(fields).map(([name, value]) => Buffer.concat([Buffer.from([0]), text(name), text(value)])),
  );
}

const REQUEST = headers({
  ":method": "POST",
  ":scheme": "http",
  ":path": PATH,
  "content-type": "application/grpc",
  te: "trailers",
});

const number = (value: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

/** A TLS connection with a valid identity; the preface is sent unless told otherwise. */
async function openRaw(bed: Bed, { preface = true } = {}): Promise<TLSSocket> {
  const { svid } = (await bed.source("/abuser")).current();
  const socket = connectTls({
    path: bed.url().slice("unix://".length),
    key: svid.privateKeyPem,
    cert: svid.chainPem,
    ALPNProtocols: ["h2"],
    rejectUnauthorized: false,
  });
  onTestFinished(() => void socket.destroy());
  socket.on("error", () => undefined);
  await once(socket, "secureConnect");
  if (preface) socket.write(Buffer.concat([PREFACE, frame(TYPE.SETTINGS, 0, 0)]));
  return socket;
}

/** Another client that asks and asks; how often it was served. Fails when it once was not. */
async function startWitness(bed: Bed) {
  const pool = bed.pool(await bed.source("/witness"));
  const over = new AbortController();
  let served = 0;
  const ask = async () => {
    const request = create(NetworkServiceRequestSchema);
    await pool.unary({ url: bed.url() }, NetworkService.method.request, request);
    served++;
  };
  await ask();
  const running = (async () => {
    while (!over.signal.aborted) {
      await ask();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  running.catch(() => undefined); // a test that failed has closed the bed under it; stop() tells
  return {
    async stop() {
      over.abort();
      await running;
      await ask();
      return { served };
    },
  };
}

/** Sends until the other side has closed, or so many chunks were sent; lets others have the loop now and then. */
async function flood(socket: Socket, chunk: (index: number) => Buffer, chunks: number): Promise<void> {
  socket.resume();
  for (let index = 0; index < chunks && !socket.destroyed && !socket.closed; index++) {
    if (!socket.write(chunk(index)))
      await Promise.race([once(socket, "drain"), once(socket, "close")]).catch(() => undefined); // it was cut
    if (index % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
}

const repeated = (each: Buffer, times: number) => Buffer.concat(Array<Buffer>(times).fill(each));

/** Floods that a session does not survive. */
const CUT: Readonly<Record<string, (index: number) => Buffer>> = {
  "streams opened and reset": (index) =>
    Buffer.concat(
      Array.from({ length: 100 }, (_, i) => {
        const stream = 2 * (index * 100 + i) + 1;
        return Buffer.concat([
          frame(TYPE.HEADERS, END_HEADERS, stream, REQUEST),
          frame(TYPE.RST_STREAM, 0, stream, number(8)),
        ]);
      }),
    ),
  "a header list that never ends": (index) =>
    index === 0
      ? frame(TYPE.HEADERS, 0, 1, REQUEST)
      : frame(TYPE.CONTINUATION, 0, 1, headers({ x: "y".repeat(1000) })),
  "windows that overflow": () => repeated(frame(TYPE.WINDOW_UPDATE, 0, 0, number(0x7fffffff)), 2),
  "frames on a stream that never was": () => repeated(frame(TYPE.DATA, 0, 99, Buffer.alloc(10)), 100),
  "continuations of nothing": () => frame(TYPE.CONTINUATION, 0, 7, Buffer.alloc(10)),
  rubbish: (index) => Buffer.from(Array.from({ length: 2000 }, (_, i) => (i * 31 + index * 17) % 256)),
};

test.for(Object.entries(CUT))("%s: the session is cut, another client is served", async ([, chunk]) => {
  await using bed = await openBed();
  await bed.serve();
  const witness = await startWitness(bed);
  const abuser = await openRaw(bed);
  await flood(abuser, chunk, 2000);
  await until("the abuser's session is cut", () => abuser.destroyed || abuser.readableEnded, 10_000);
  expect((await witness.stop()).served).toBeGreaterThan(1);
});

/** What a session may do; it costs the abuser more than us. */
const BORNE: Readonly<Record<string, (index: number) => Buffer>> = {
  pings: () => repeated(frame(TYPE.PING, 0, 0, Buffer.alloc(8)), 100),
  settings: (index) =>
    repeated(
      frame(TYPE.SETTINGS, 0, 0, Buffer.concat([Buffer.from([0, 4]), number(65_535 + (index % 2))])),
      50,
    ),
  "empty data": (index) =>
    index === 0 ? frame(TYPE.HEADERS, END_HEADERS, 1, REQUEST) : repeated(frame(TYPE.DATA, 0, 1), 100),
  "a byte of data at a time": (index) =>
    index === 0
      ? frame(TYPE.HEADERS, END_HEADERS, 1, REQUEST)
      : repeated(frame(TYPE.DATA, 0, 1, Buffer.alloc(1)), 100),
};

test.for(Object.entries(BORNE))(
  "%s by the thousand: another client is served meanwhile",
  async ([, chunk]) => {
    await using bed = await openBed();
    await bed.serve();
    const witness = await startWitness(bed);
    await flood(await openRaw(bed), chunk, 300);
    expect((await witness.stop()).served).toBeGreaterThan(1);
  },
);

test("pings whose answers nobody reads end the session", async () => {
  await using bed = await openBed();
  await bed.serve();
  const witness = await startWitness(bed);
  const abuser = await openRaw(bed);
  abuser.pause();
  for (let i = 0; i < 400 && !abuser.destroyed; i++) {
    abuser.write(repeated(frame(TYPE.PING, 0, 0, Buffer.alloc(8)), 1000));
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect((await witness.stop()).served).toBeGreaterThan(1);
});

test("headers of a megabyte are refused, whether written out or blown up by the table", async () => {
  await using bed = await openBed();
  await bed.serve();
  const witness = await startWitness(bed);
  const plain = await openRaw(bed);
  const block = Buffer.concat([REQUEST, headers({ "x-large": "y".repeat(16_000) })]);
  const parts = [frame(TYPE.HEADERS, 0, 1, block)];
  for (let i = 0; i < 7; i++)
    parts.push(frame(TYPE.CONTINUATION, 0, 1, headers({ [`x-${i}`]: "y".repeat(16_000) })));
  await flood(plain, () => Buffer.concat(parts), 1);
  // One field of 4000 bytes put into the table (section 6.2.1), then named sixteen thousand times (section 6.1).
  const bomb = await openRaw(bed);
  const stored = headers({ "x-bomb": "z".repeat(4000) });
  stored.writeUInt8(0x40, 0);
  await flood(
    bomb,
    () => frame(TYPE.HEADERS, END_HEADERS, 1, Buffer.concat([REQUEST, stored, Buffer.alloc(10_000, 0xbe)])),
    1,
  );
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect((await witness.stop()).served).toBeGreaterThan(1);
});

test("handshakes that trickle, stop halfway or never begin lock nobody out, and end in time", async () => {
  await using bed = await openBed();
  await bed.serve({ limits: { handshakeMs: 1000 } });
  const witness = await startWitness(bed);
  const path = bed.url().slice("unix://".length);
  const sockets = Array.from({ length: 300 }, (_, i) => {
    const socket = connectSocket(path);
    onTestFinished(() => void socket.destroy());
    socket.on("error", () => undefined);
    socket.resume();
    // The first bytes of a ClientHello, or nothing.
    if (i % 2 === 0) socket.write(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]));
    return socket;
  });
  const trickle = setInterval(() => {
    for (const socket of sockets) if (!socket.destroyed) socket.write(Buffer.from([0]));
  }, 100);
  await until("all are cut", () => sockets.every(({ destroyed }) => destroyed), 15_000);
  clearInterval(trickle);
  expect((await witness.stop()).served).toBeGreaterThan(1);
});

test("sessions that say nothing after the handshake are cut, one that began HTTP/2 is not", async () => {
  await using bed = await openBed();
  await bed.serve({ limits: { handshakeMs: 1000 } });
  const idle = await openRaw(bed);
  const silent = await Promise.all(Array.from({ length: 20 }, () => openRaw(bed, { preface: false })));
  for (const socket of [idle, ...silent]) socket.resume();
  await until("all are cut", () => silent.every((socket) => socket.destroyed), 10_000);
  expect(idle.destroyed).toBe(false);
});

test("a thousand connections that are dropped in any state leave no descriptor", async () => {
  await using bed = await openBed();
  await bed.serve();
  const witness = await startWitness(bed);
  const path = bed.url().slice("unix://".length);
  const before = await descriptorCount();
  for (let round = 0; round < 50; round++) {
    const dropped = Array.from({ length: 20 }, () => connectSocket(path).on("error", () => undefined));
    const settled = dropped.map((socket) => Promise.race([once(socket, "connect"), once(socket, "close")]));
    await Promise.allSettled(settled); // some find the listener's queue full
    for (const [i, socket] of dropped.entries()) {
      if (i % 3 === 0) socket.write(Buffer.from([0x16, 0x03, 0x01]));
      if (i % 3 === 1) socket.end();
      socket.destroy();
    }
  }
  expect((await witness.stop()).served).toBeGreaterThan(1);
  expect(await descriptorsFellTo(before)).toBe(true);
});
