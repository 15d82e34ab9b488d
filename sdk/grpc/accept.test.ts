/** Who gets a session: handshakes of clients that are strangers, liars, out of date or silent. */
import { connect as connectHttp2 } from "node:http2";
import { connect as connectSocket } from "node:net";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { ConnectionOptions, TLSSocket } from "node:tls";
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionSchema } from "../../api/gen/connection_pb.js";
import { NetworkService, NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import {
  caExtensions,
  makeAuthority,
  makeCertificate,
  svidExtensions,
  svidOf,
} from "../../test/support/certificates.ts";
import { failureOf, openBed, until } from "../../test/support/grpc.ts";
import type { Bed } from "../../test/support/grpc.ts";
import { makeSource } from "../../test/support/identity.ts";
import { createLogger } from "../log.ts";
import type { X509Snapshot } from "../spiffe/source.ts";
import { x509 } from "../spiffe/x509.ts";
import type { SessionPool } from "./sessions.ts";

function ask(bed: Bed, pool: SessionPool) {
  const request = create(NetworkServiceRequestSchema);
  return pool.unary({ url: bed.url() }, NetworkService.method.request, request, { timeoutMs: 5000 });
}

const pathOf = (url: string) => url.slice("unix://".length);

test("clients without a good SVID are refused before a request", async () => {
  await using bed = await openBed();
  let calls = 0;
  await bed.serve({
    service: { request: () => Promise.resolve(create(ConnectionSchema, { id: `${++calls}` })) },
  });
  const { authority } = bed;
  const foreign = await makeAuthority("foreign.test");
  const stranger = await makeSource(foreign, "/client", { bundles: authority.bundles });
  const expired = await makeSource(authority, "/client", { lifetimeMs: -2000 });
  const twoIds = await bed.source("/client");
  const both = ["spiffe://example.org/client", "spiffe://example.org/admin"].map(
    (value) => ({ type: "url", value }) as const,
  );
  const leaf = await makeCertificate({
    issuer: authority.ca,
    extensions: [
      ...svidExtensions(both[0]?.value ?? "").slice(1),
      new x509.SubjectAlternativeNameExtension(both, true),
    ],
  });
  twoIds.push({ svid: svidOf("spiffe://example.org/client", leaf) });
  for (const source of [stranger, expired, twoIds])
    expect(await failureOf(ask(bed, bed.pool(source)))).toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringContaining("may not accept"),
    });
  expect(calls).toBe(0);
});

test.each([
  ["refused", undefined, "refused"],
  [
    "let in where it may come in",
    (id: string) => id === "spiffe://west.test/proxy/west",
    "spiffe://west.test/proxy/west",
  ],
])("a client of another trust domain that the mesh trusts is %s", async (_, isNeighbour, outcome) => {
  await using bed = await openBed();
  const west = await makeAuthority("west.test");
  const bundles = new Map([...bed.authority.bundles, ...west.bundles]);
  const lines: unknown[] = [];
  const log = createLogger("server", "warn", { write: (line) => void lines.push(JSON.parse(line)) });
  const source = await makeSource(bed.authority, "/server", { bundles });
  await bed.serve({ source, log, ...(isNeighbour && { isNeighbour }) });
  const clientOf = async (path: string) => bed.pool(await makeSource(west, path, { bundles }));
  const asked = ask(bed, await clientOf("/proxy/west")).then(
    ({ response }) => response.id,
    () => "refused",
  );
  expect(await asked).toBe(outcome);
  expect(await failureOf(ask(bed, await clientOf("/other")))).toMatchObject({ code: "UNAVAILABLE" });
  expect(lines.at(-1)).toMatchObject({ msg: "session refused", err: { reason: "other-domain" } });
  expect(JSON.stringify(lines.at(-1))).toContain("spiffe://west.test/other");
});

test("a client whose SVID has an intermediate is let in", async () => {
  await using bed = await openBed();
  await bed.serve();
  const { authority } = bed;
  const intermediate = await makeCertificate({ issuer: authority.ca, extensions: caExtensions() });
  const id = "spiffe://example.org/nested";
  const leaf = await makeCertificate({ issuer: intermediate, extensions: svidExtensions(id) });
  const source = await bed.source("/client");
  source.push({ svid: svidOf(id, leaf, [intermediate]) });
  expect((await ask(bed, bed.pool(source))).response.id).toBe(id);
});

test("plaintext, no certificate, no ALPN and old TLS get no session; tickets are not given", async () => {
  await using bed = await openBed();
  await bed.serve();
  const own = (await bed.source("/client")).current();
  expect(await http2Reached(bed, own, {})).toBe(true);
  expect(await http2Reached(bed, own, { key: undefined, cert: undefined })).toBe(false);
  expect(await http2Reached(bed, own, { ALPNProtocols: [] })).toBe(false);
  expect(await http2Reached(bed, own, { ALPNProtocols: ["http/1.1"] })).toBe(false);
  expect(await http2Reached(bed, own, { maxVersion: "TLSv1.1", minVersion: "TLSv1" })).toBe(false);
  expect(await settingsReceived(connectSocket(pathOf(bed.url())))).toBe(false);
  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const)
    expect(await resumed(bed, own, maxVersion)).toBe(false);
});

test.each([0, 1])(
  "a flood of connections that send %d bytes is bounded and locks nobody out",
  async (bytes) => {
    await using bed = await openBed();
    await bed.serve({ limits: { maxHalfOpen: 8, handshakeMs: 1000 } });
    const open = new Set<Socket>();
    const flood = () => {
      const socket = connectSocket(pathOf(bed.url()));
      open.add(socket);
      socket.once("close", () => open.delete(socket)).on("error", () => undefined);
      socket.resume();
      socket.write(Buffer.alloc(bytes, 0x16));
    };
    for (let i = 0; i < 40; i++) flood();
    await until("the excess closed", () => open.size <= 8);
    // Those that are silent for a while make room.
    const source = await bed.source("/client");
    await until("a session in the flood", async () => {
      flood();
      const answer = await ask(bed, bed.pool(source)).catch(() => undefined);
      return answer !== undefined;
    });
    await until("the rest timed out", () => open.size === 0);
    expect((await ask(bed, bed.pool(source))).response.id).toBe("spiffe://example.org/client");
  },
);

test("a connection that closes without a byte and one that speaks no TLS are told apart, without stacks", async () => {
  await using bed = await openBed();
  const lines: unknown[] = [];
  const log = createLogger("server", "debug", { write: (line) => void lines.push(JSON.parse(line)) });
  await bed.serve({ log });
  connectSocket(pathOf(bed.url())).end().resume();
  await until("the first line", () => lines.length === 1);
  connectSocket(pathOf(bed.url()))
    .end("GET / HTTP/1.1\r\n\r\n")
    .on("error", () => undefined)
    .resume();
  await until("the second line", () => lines.length === 2);
  expect(lines).toMatchObject([
    { level: 20, msg: "connection closed before the end of the handshake" },
    {
      level: 20,
      msg: "handshake failed",
      err: { code: "UNAUTHENTICATED", reason: "handshake-failed", message: "TLS handshake: http request" },
    },
  ]);
  expect(JSON.stringify(lines)).not.toContain("stack");
});

/** Whether a handshake with these changes gets as far as the server's HTTP/2 settings. */
async function http2Reached(bed: Bed, own: X509Snapshot, change: ConnectionOptions): Promise<boolean> {
  const socket = connectTls({
    path: pathOf(bed.url()),
    key: own.svid.privateKeyPem,
    cert: own.svid.chainPem,
    ALPNProtocols: ["h2"],
    rejectUnauthorized: false,
    ...change,
  });
  return settingsReceived(socket);
}

function settingsReceived(socket: Socket): Promise<boolean> {
  return new Promise((resolve) => {
    socket.on("error", () => resolve(false));
    socket.once("close", () => resolve(false));
    const session = connectHttp2("http://localhost", { createConnection: () => socket });
    session.on("error", () => resolve(false));
    session.once("close", () => resolve(false));
    session.once("remoteSettings", () => {
      resolve(true);
      session.destroy();
    });
  });
}

/** Whether the server takes up a TLS session again that it had before. */
async function resumed(bed: Bed, own: X509Snapshot, maxVersion: "TLSv1.2" | "TLSv1.3"): Promise<boolean> {
  const { privateKeyPem: key, chainPem: cert } = own.svid;
  const base = {
    path: pathOf(bed.url()),
    key,
    cert,
    ALPNProtocols: ["h2"],
    rejectUnauthorized: false,
    maxVersion,
  };
  const first = connectTls(base);
  const ticket = await new Promise<Buffer | undefined>((resolve) => {
    first.once("session", resolve);
    void secured(first)
      .then(() => settingsReceived(first))
      .then(() => resolve(first.getSession()));
  });
  const second = connectTls({ ...base, ...(ticket && { session: ticket }) });
  await secured(second);
  const reused = second.isSessionReused();
  second.destroy();
  return reused;
}

function secured(socket: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
}
