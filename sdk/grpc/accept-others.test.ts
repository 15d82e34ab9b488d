/** One port, several protocols: what ALPN leads where, and that nothing of it loosens what gRPC's sessions are held to. */
import { connect as connectTls } from "node:tls";
import type { ConnectionOptions, TLSSocket } from "node:tls";
import { expect, onTestFinished, test } from "vitest";
import { create } from "@bufbuild/protobuf";
import { NetworkService, NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import { makeAuthority } from "../../test/support/certificates.ts";
import { failureOf, openBed } from "../../test/support/grpc.ts";
import type { Bed } from "../../test/support/grpc.ts";
import { makeSource } from "../../test/support/identity.ts";
import { systemClock } from "../clock.ts";
import { createHttpsDoor, failure } from "../https-door.ts";
import type { Routes } from "../https-door.ts";
import { silentLogger } from "../log.ts";
import type { X509Snapshot } from "../spiffe/source.ts";
import { verifySvid } from "../spiffe/verify.ts";
import type { Authorize } from "./accept.ts";
import { openServer } from "./server.ts";

const TUNNEL = "raw-test";

interface Served {
  readonly port: number;
  /** Ids of the peers of raw sockets. */
  readonly raw: string[];
}

async function serve(bed: Bed, routes: Routes, authorize?: Authorize): Promise<Served> {
  const raw: string[] = [];
  const door = createHttpsDoor(routes, { clock: systemClock, log: silentLogger });
  const server = await openServer(
    {
      source: await bed.source("/server"),
      verify: verifySvid,
      clock: systemClock,
      log: silentLogger,
      listen: [{ url: "tcp://127.0.0.1:0", ...(authorize && { authorize }) }],
      limits: { handshakeMs: 500 },
      others: {
        https: (socket) => door.accept(socket),
        verified: new Map([
          [
            TUNNEL,
            (peer, socket) => {
              raw.push(peer.spiffeId);
              socket.pipe(socket);
            },
          ],
        ]),
      },
    },
    (add) =>
      add(NetworkService, {
        request: () => Promise.resolve(create(NetworkService.method.request.output, { id: "grpc" })),
        close: () => Promise.resolve(create(NetworkService.method.close.output)),
      }),
  );
  onTestFinished(async () => {
    door[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });
  return { port: Number(server.addresses[0]?.split(":").at(-1)), raw };
}

const certificateOf = ({ svid }: X509Snapshot) => ({ key: svid.privateKeyPem, cert: svid.chainPem });

/** Everything that comes back for what is sent, until the other side closes; `refused` when there is no connection. */
function say(port: number, text: string, options: ConnectionOptions): Promise<string> {
  return new Promise((resolve) => {
    let heard = "";
    const socket: TLSSocket = connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false, ...options });
    socket.on("secureConnect", () => socket.write(text));
    socket.on("data", (data: Buffer) => {
      heard += data.toString();
      if (socket.alpnProtocol === TUNNEL && heard === text) socket.destroy();
    });
    socket.on("error", () => resolve(heard || "refused"));
    socket.on("close", () => resolve(heard || "refused"));
  });
}

const bundle: Routes = { "GET /bundle": () => ({ status: 200, body: '{"keys":[]}' }) };

test.for([[["http/1.1"]], [undefined]])("ALPN %j asks over https, without a certificate", async ([alpn]) => {
  await using bed = await openBed();
  const { port } = await serve(bed, bundle);
  const protocols = alpn === undefined ? {} : { ALPNProtocols: alpn };
  const answer = await say(port, "GET /bundle HTTP/1.1\r\nhost: x\r\n\r\n", protocols);
  expect(answer).toMatch(/^HTTP\/1\.1 200 [^]*connection: close[^]*\{"keys":\[\]\}$/i);
  expect(await say(port, "GET /other HTTP/1.1\r\nhost: x\r\n\r\n", protocols)).toMatch(/^HTTP\/1\.1 404/);
  expect(await say(port, "GET /__proto__ HTTP/1.1\r\nhost: x\r\n\r\n", protocols)).toMatch(/^HTTP\/1\.1 404/);
});

test("gRPC needs its certificate at such a port as at any other", async () => {
  await using bed = await openBed();
  const { port, raw } = await serve(bed, bundle, ({ spiffeId }) => spiffeId.endsWith("/client"));
  const ask = async (source: Awaited<ReturnType<Bed["source"]>>) => {
    const request = create(NetworkServiceRequestSchema);
    const target = { url: `tcp://127.0.0.1:${port}` };
    return await bed.pool(source).unary(target, NetworkService.method.request, request);
  };
  expect((await ask(await bed.source("/client"))).response.id).toBe("grpc");
  const foreign = await makeSource(await makeAuthority("foreign.test"), "/client", {
    bundles: bed.authority.bundles,
  });
  for (const source of [foreign, await bed.source("/unwanted")])
    expect(await failureOf(ask(source))).toMatchObject({ code: "UNAVAILABLE" });
  expect(await say(port, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", { ALPNProtocols: ["h2"] })).toBe("refused");
  expect(raw).toEqual([]);
});

test("a raw socket is given to verified and authorized peers only", async () => {
  await using bed = await openBed();
  const { port, raw } = await serve(bed, bundle, ({ spiffeId }) => spiffeId.endsWith("/client"));
  const alpn = { ALPNProtocols: [TUNNEL] };
  const [client, unwanted] = [await bed.source("/client"), await bed.source("/unwanted")];
  expect(await say(port, "bytes", { ...alpn, ...certificateOf(client.current()) })).toBe("bytes");
  expect(await say(port, "bytes", { ...alpn, ...certificateOf(unwanted.current()) })).toBe("refused");
  expect(await say(port, "bytes", alpn)).toBe("refused");
  expect(await say(port, "bytes", { ALPNProtocols: ["unknown"] })).toBe("refused");
  expect(raw).toEqual(["spiffe://example.org/client"]);
});

test("a question over https is bounded in size, number and count of connections", async () => {
  await using bed = await openBed();
  const { port } = await serve(bed, {
    ...bundle,
    "POST /echo": ({ body }) => ({ status: 200, body }),
    "POST /hang": () => new Promise(() => undefined),
    "POST /fail": () => {
      throw new Error("broken");
    },
    "POST /no": () => failure(409, "no", "not-so"),
  });
  const post = (path: string, body: string) =>
    say(
      port,
      `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      {},
    );
  expect(await post("/echo", '"é"')).toContain('"é"');
  expect(await post("/echo", "x".repeat(3 * 1024 * 1024))).not.toContain(" 200 ");
  expect(await post("/fail", "")).toMatch(/^HTTP\/1\.1 500 [^]*"internal error"}$/);
  expect(await post("/fail", "")).not.toContain("broken");
  expect(await post("/bundle", "")).toMatch(/^HTTP\/1\.1 405 [^]*\nallow: GET\r\n/i);
  expect(await post("/no", "")).toContain('{"reason":"not-so","message":"no"}');
  const twice = "GET /bundle HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2);
  expect((await say(port, twice, {})).match(/ 200 /g)).toHaveLength(1);
  expect(await say(port, `GET /bundle HTTP/1.1\r\nx: ${"y".repeat(9000)}\r\n\r\n`, {})).not.toContain(
    " 200 ",
  );

  const hanging = Array.from({ length: 40 }, () => post("/hang", ""));
  expect(await Promise.race(hanging)).toBe("refused");
});
