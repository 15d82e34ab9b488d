/**
 * Arbitrary bytes and metadata into every method of a manager, by a caller with a good identity: each call ends with a status
 * that blames the caller or says that it cannot be done, never with a fault of ours, and good calls are served all the while.
 */
import { connect as connectHttp2, constants } from "node:http2";
import type { ClientHttp2Session } from "node:http2";
import { connect as connectTls } from "node:tls";
import { create, toBinary } from "@bufbuild/protobuf";
import * as fc from "fast-check";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import {
  ConnectionSchema,
  MonitorConnection,
  MonitorScopeSelectorSchema,
} from "../../api/gen/connection_pb.js";
import { NetworkService } from "../../api/gen/networkservice_pb.js";
import {
  NetworkServiceEndpointQuerySchema,
  NetworkServiceEndpointRegistry,
  NetworkServiceEndpointSchema,
  NetworkServiceQuerySchema,
  NetworkServiceRegistry,
  NetworkServiceSchema,
} from "../../api/gen/registry_pb.js";
import { firstRequest } from "../../nsc/request.ts";
import { NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import { systemClock as clock } from "../../sdk/clock.ts";
import { monitorHandlers, networkServiceHandlers } from "../../sdk/elements/serve.ts";
import { GrpcCode } from "../../sdk/errors.ts";
import { openServer } from "../../sdk/grpc/server.ts";
import { silentLogger as log } from "../../sdk/log.ts";
import { netnsUrl } from "../../sdk/netns-url.ts";
import { endpointRegistryHandlers, serviceRegistryHandlers } from "../../sdk/registry/serve.ts";
import type { X509Source } from "../../sdk/spiffe/source.ts";
import { verifySvid } from "../../sdk/spiffe/verify.ts";
import { createTokenMinter, writeTokenMetadata } from "../../sdk/token.ts";
import { openBed } from "../support/grpc.ts";
import { startInProcess } from "../support/in-process.ts";

const stack = new AsyncDisposableStack();
let openSession: () => Promise<ClientHttp2Session>;
let session: ClientHttp2Session;
let sessionError: Error | undefined;
let token: Readonly<Record<string, string>>;
let good: () => Promise<unknown>;
const minter = createTokenMinter({ clock });

beforeAll(async () => {
  const bed = stack.use(await openBed());
  const mesh = stack.use(await startInProcess({ authority: bed.authority }));
  await mesh.service({ name: "service", payload: "IP" });
  const [node] = await mesh.nodes("one");
  await node.endpoint({ name: "nse", service: "service" });
  const { manager } = node;
  const { chain, store, registries } = manager;
  const { own } = manager.station;
  const source: X509Source = {
    current: () => own,
    onChange: () => ({ [Symbol.dispose]: () => undefined }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  const options = {
    minter,
    clock,
    ownersOfService: () => undefined,
    ownersOfEndpoint: (name: string) => manager.ownersOf(name),
    mayRelay: () => false,
  };
  stack.use(
    await openServer({ source, verify: verifySvid, clock, log, listen: [bed.url()] }, (add) => {
      add(NetworkService, networkServiceHandlers(chain));
      add(MonitorConnection, monitorHandlers(store));
      add(NetworkServiceRegistry, serviceRegistryHandlers(registries, options));
      add(NetworkServiceEndpointRegistry, endpointRegistryHandlers(registries, options));
    }),
  );
  const { svid } = (await bed.source("/fuzzer")).current();
  openSession = async () => {
    const socket = connectTls({
      path: bed.url().slice("unix://".length),
      key: svid.privateKeyPem,
      cert: svid.chainPem,
      ALPNProtocols: ["h2"],
      rejectUnauthorized: false,
    });
    const opened = connectHttp2("http://localhost", { createConnection: () => socket });
    opened.on("error", (error) => (sessionError ??= error));
    await new Promise((resolve) => opened.once("remoteSettings", resolve));
    return opened;
  };
  token = writeTokenMetadata(minter.mint(svid, source.current().svid.id));

  const friend = await bed.source("/friend");
  const pool = bed.pool(friend);
  const metadata = () => writeTokenMetadata(minter.mint(friend.current().svid, source.current().svid.id));
  good = async () => {
    const target = { url: bed.url() };
    const { response } = await pool.unary(target, NetworkService.method.request, wish("friend"), {
      metadata,
    });
    await pool.unary(target, NetworkService.method.close, response, { metadata });
  };
});
afterAll(() => stack.disposeAsync());

// One a test: the HTTP/2 library rightly cuts a session of which more than 1000 streams are reset within a short time.
beforeEach(async () => {
  sessionError = undefined;
  session = await openSession();
});
afterEach(() => session.destroy());

function wish(name: string) {
  return firstRequest({
    id: `${name}-0`,
    name,
    networkService: "service",
    labels: { app: name },
    interfaceName: "nsm-1",
    netnsUrl: netnsUrl(),
  });
}

/** A good message for each method; streams are ended after their first answer. */
const request = wish("fuzzer");
const METHODS: Readonly<Record<string, Uint8Array>> = {
  "/networkservice.NetworkService/Request": toBinary(NetworkServiceRequestSchema, request),
  "/networkservice.NetworkService/Close": toBinary(
    ConnectionSchema,
    request.connection ?? create(ConnectionSchema),
  ),
  [`/${MonitorConnection.typeName}/MonitorConnections`]: toBinary(
    MonitorScopeSelectorSchema,
    create(MonitorScopeSelectorSchema, { pathSegments: [{ name: "fuzzer", id: "fuzzer-0" }] }),
  ),
  "/registry.NetworkServiceRegistry/Register": toBinary(
    NetworkServiceSchema,
    create(NetworkServiceSchema, { name: "mine", payload: "IP", matches: [{ routes: [{ weight: 3 }] }] }),
  ),
  "/registry.NetworkServiceRegistry/Unregister": toBinary(
    NetworkServiceSchema,
    create(NetworkServiceSchema, { name: "mine" }),
  ),
  "/registry.NetworkServiceRegistry/Find": toBinary(
    NetworkServiceQuerySchema,
    create(NetworkServiceQuerySchema, { networkService: { name: "service" }, watch: true }),
  ),
  "/registry.NetworkServiceEndpointRegistry/Register": toBinary(
    NetworkServiceEndpointSchema,
    create(NetworkServiceEndpointSchema, {
      name: "my-nse",
      networkServiceNames: ["mine"],
      networkServiceLabels: { mine: { labels: { a: "b" } } },
      url: "tcp://192.0.2.7:5001",
    }),
  ),
  "/registry.NetworkServiceEndpointRegistry/Unregister": toBinary(
    NetworkServiceEndpointSchema,
    create(NetworkServiceEndpointSchema, { name: "my-nse" }),
  ),
  "/registry.NetworkServiceEndpointRegistry/Find": toBinary(
    NetworkServiceEndpointQuerySchema,
    create(NetworkServiceEndpointQuerySchema, {
      networkServiceEndpoint: { networkServiceNames: ["mine"] },
      watch: true,
    }),
  ),
};

interface Call {
  readonly body: Uint8Array;
  readonly metadata: Readonly<Record<string, string | string[]>>;
  /** Left after so many milliseconds; undefined waits for the answer. */
  readonly leaveMs: number | undefined;
}

/** The name of the gRPC status that it ended with, or `left`. */
function call(path: string, { body, metadata, leaveMs }: Call): Promise<string> {
  return new Promise((resolve) => {
    const head = Buffer.alloc(5);
    head.writeUInt32BE(body.length, 1);
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
      "grpc-timeout": "2000m",
      ...metadata,
    });
    let status = "left";
    const heard = (fields: Readonly<Record<string, unknown>>) => {
      const code = Number(fields["grpc-status"] ?? Number.NaN);
      status = Object.entries(GrpcCode).find(([, value]) => value === code)?.[0] ?? status;
    };
    stream.on("response", heard);
    stream.on("trailers", heard);
    stream.on("error", () => undefined);
    stream.on("data", () => {
      if (/Find|Monitor/.test(path)) stream.close(constants.NGHTTP2_CANCEL); // it has begun: enough
    });
    // A stream that has nothing to tell yet goes on for ever.
    const limitMs = leaveMs ?? (/Find|Monitor/.test(path) ? 20 : 5000);
    const timer = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), limitMs);
    stream.once("close", () => {
      clearTimeout(timer);
      resolve(status);
    });
    stream.end(Buffer.concat([head, body]));
  });
}

/** Whose fault it is not: what our own code did not expect. */
const OUR_FAULT: ReadonlySet<string> = new Set(["INTERNAL", "UNKNOWN", "DATA_LOSS"]);

const json = fc.oneof(
  fc.jsonValue().map((value) => JSON.stringify(value)),
  fc.constantFrom(
    "null",
    '{"index":-1}',
    '{"index":1e99,"path_segments":null}',
    '{"index":0,"path_segments":[null]}',
    '{"Index":99999999999,"PathSegments":[{"name":"a","id":"b"}]}',
    '{"Index":0,"PathSegments":[{"token":1}]}',
    `{"Index":0,"PathSegments":${"[".repeat(3000)}`,
    '{"__proto__":{"Index":1}}',
  ),
);
const printable = fc.string({ maxLength: 100 }).map((text) => text.replaceAll(/[^\x21-\x7e]/g, "."));

const metadataOf = fc.record(
  {
    path: fc.oneof(json, printable).map((text) => text.replaceAll(/[^\x20-\x7e]/g, ".").trim()),
    "nsm-client-token": fc.oneof(printable, fc.constant("a.b.c"), fc.constant("x".repeat(20_000))),
    "nsm-client-token-expires": fc.oneof(printable, fc.constant("2099-01-01T00:00:00Z")),
    "x-more": fc.array(printable, { maxLength: 5 }),
  },
  { requiredKeys: [] },
);

/** A good message with a few bytes changed, cut, doubled or put in, or no message at all. */
function bodyOf(message: Uint8Array): fc.Arbitrary<Uint8Array> {
  const edit = fc.record({
    at: fc.nat(message.length),
    cut: fc.nat(8),
    put: fc.uint8Array({ maxLength: 8 }),
  });
  const mutated = fc
    .array(edit, { maxLength: 4 })
    .map((edits) =>
      edits.reduce<Uint8Array>(
        (bytes, { at, cut, put }) => Buffer.concat([bytes.subarray(0, at), put, bytes.subarray(at + cut)]),
        message,
      ),
    );
  return fc.oneof(
    { weight: 4, arbitrary: mutated },
    fc.uint8Array({ maxLength: 300 }),
    fc.constant(Buffer.alloc(600_000, 0x0a)),
  );
}

test.for(Object.entries(METHODS))("%s takes anything and blames whom it should", async ([path, message]) => {
  await fc.assert(
    fc.asyncProperty(
      bodyOf(message),
      metadataOf,
      fc.boolean(),
      fc.option(fc.nat(10), { nil: undefined, freq: 4 }),
      async (body, metadata, withToken, leaveMs) => {
        const status = await call(path, {
          body,
          metadata: { ...(withToken && token), ...metadata },
          leaveMs,
        });
        expect(
          OUR_FAULT.has(status),
          `${status} for ${JSON.stringify(metadata)} ${Buffer.from(body).toString("hex")}`,
        ).toBe(false);
      },
    ),
    { numRuns: 150 },
  );
  expect(sessionError).toBeUndefined();
  await good();
});
