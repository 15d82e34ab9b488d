/** Peers with a good identity and bad HTTP/2 or gRPC: the call or the session ends, the server goes on. */
import { connect as connectHttp2, constants } from "node:http2";
import type { ClientHttp2Session } from "node:http2";
import { connect as connectTls } from "node:tls";
import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { NetworkService, NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import { openBed } from "../../test/support/grpc.ts";
import type { Bed } from "../../test/support/grpc.ts";
import { GrpcCode } from "../errors.ts";

const PATH = "/networkservice.NetworkService/Request";

/** A session below gRPC, with a valid identity. */
async function openSession(bed: Bed): Promise<ClientHttp2Session> {
  const { svid } = (await bed.source("/client")).current();
  const socket = connectTls({
    path: bed.url().slice("unix://".length),
    key: svid.privateKeyPem,
    cert: svid.chainPem,
    ALPNProtocols: ["h2"],
    rejectUnauthorized: false,
  });
  const session = connectHttp2("http://localhost", { createConnection: () => socket });
  session.on("error", () => undefined);
  await new Promise((resolve) => session.once("remoteSettings", resolve));
  return session;
}

/** The status of one request made of raw bytes: of gRPC if there is one, else the name of what happened. */
function statusOfRaw(
  session: ClientHttp2Session,
  body: Uint8Array,
  headers: Record<string, string> = {},
): Promise<number | string> {
  return new Promise((resolve) => {
    const stream = session.request({
      ":method": "POST",
      ":path": PATH,
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    });
    let status: number | string = "no status";
    stream.on("response", (fields) => (status = Number(fields["grpc-status"] ?? `${fields[":status"]}`)));
    stream.on("trailers", (fields) => (status = Number(fields["grpc-status"])));
    stream.on("error", () => (status = "reset"));
    stream.once("close", () => resolve(status));
    stream.resume();
    stream.end(body);
  });
}

function frame(message: Uint8Array, { compressed = 0, length = message.length } = {}): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(compressed, 0);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
}

/** Whether another client is served. */
async function serves(bed: Bed): Promise<boolean> {
  const pool = bed.pool(await bed.source("/witness"));
  const request = create(NetworkServiceRequestSchema);
  const { response } = await pool.unary({ url: bed.url() }, NetworkService.method.request, request);
  return response.id === "spiffe://example.org/witness";
}

test("broken requests get a status each", async () => {
  await using bed = await openBed();
  await bed.serve();
  const session = await openSession(bed);
  const good = toBinary(NetworkServiceRequestSchema, create(NetworkServiceRequestSchema));
  const bomb = gzipSync(Buffer.alloc(64 * 1024 * 1024));
  expect(await statusOfRaw(session, frame(good))).toBe(GrpcCode.OK);
  expect(await statusOfRaw(session, frame(Buffer.from([0x0a, 0xff])))).toBe(GrpcCode.INVALID_ARGUMENT);
  expect(await statusOfRaw(session, frame(good, { length: 2 ** 32 - 1 }))).toBe(GrpcCode.RESOURCE_EXHAUSTED);
  expect(await statusOfRaw(session, frame(bomb, { compressed: 1 }), { "grpc-encoding": "gzip" })).toBe(
    GrpcCode.RESOURCE_EXHAUSTED,
  );
  expect(
    await statusOfRaw(session, frame(Buffer.from("no gzip"), { compressed: 1 }), { "grpc-encoding": "gzip" }),
  ).toBe(GrpcCode.INTERNAL);
  expect(await statusOfRaw(session, frame(good, { compressed: 1 }), { "grpc-encoding": "unknown" })).toBe(
    GrpcCode.UNIMPLEMENTED,
  );
  expect(await statusOfRaw(session, frame(good), { ":path": "/no.Service/Method" })).toBe(
    GrpcCode.UNIMPLEMENTED,
  );
  expect(await statusOfRaw(session, frame(good), { "content-type": "text/html" })).toBe(415);
  expect(await statusOfRaw(session, frame(good), { "grpc-timeout": "soon" })).toBe(GrpcCode.INTERNAL);
  expect(await statusOfRaw(session, new Uint8Array())).not.toBe(GrpcCode.OK);
  session.destroy();
  expect(await serves(bed)).toBe(true);
});

test("floods of resets, pings and settings end with the session at most", async () => {
  await using bed = await openBed();
  await bed.serve();
  const resets = await openSession(bed);
  for (let i = 0; i < 5000 && !resets.destroyed; i++) {
    const stream = resets.request({ ":method": "POST", ":path": PATH, "content-type": "application/grpc" });
    stream.on("error", () => undefined);
    stream.close(constants.NGHTTP2_CANCEL);
    if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  expect(await serves(bed)).toBe(true);
  const pings = await openSession(bed);
  for (let i = 0; i < 2000 && !pings.destroyed; i++) {
    pings.ping(() => undefined);
    pings.settings({ initialWindowSize: 65_535 + (i % 2) });
    if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  expect(await serves(bed)).toBe(true);
  resets.destroy();
  pings.destroy();
});

test("a session that ends in the middle of a call harms nobody else", async () => {
  await using bed = await openBed();
  await bed.serve({ service: { request: () => new Promise(() => undefined) } });
  for (let i = 0; i < 50; i++) {
    const session = await openSession(bed);
    const stream = session.request({ ":method": "POST", ":path": PATH, "content-type": "application/grpc" });
    stream.on("error", () => undefined);
    stream.write(Buffer.alloc(3));
    if (i % 2 === 0) session.destroy();
    else session.socket.destroySoon();
    session.destroy();
  }
  const pool = bed.pool(await bed.source("/witness"));
  expect((await pool.connect({ url: bed.url() })).peerId).toBe("spiffe://example.org/server");
});
