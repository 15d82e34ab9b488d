import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { SpiffeWorkloadAPI, X509SVIDResponseSchema } from "../../api/gen/workload_pb.js";
import type { X509SVIDResponse } from "../../api/gen/workload_pb.js";
import { makeAuthority } from "../../test/support/certificates.ts";
import type { TestAuthority } from "../../test/support/certificates.ts";
import { systemClock } from "../clock.ts";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import type { Caller } from "../grpc/caller.ts";
import type { PeerProcess } from "../grpc/peer.ts";
import { openPlainServer } from "../grpc/plain.ts";
import { silentLogger } from "../log.ts";
import { fetchJwtSvid, openX509Source, parseEndpointSocket } from "./workload-api.ts";
import type { X509Snapshot, X509Source } from "./source.ts";

let directory: string;
let path: string;
let authority: TestAuthority;
let stack: AsyncDisposableStack;
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "workload-"));
  path = join(directory, "s");
  authority = await makeAuthority("a.test");
  stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(directory, { recursive: true }));
});
afterEach(() => stack.disposeAsync());

const denied = new NsmError("PERMISSION_DENIED", "not-registered", "no registration fits");

/** What the API answers to its n-th stream (from 0); a stream stays open after the last message unless it throws. */
type Script = (stream: number, call: Caller<PeerProcess>) => AsyncIterable<X509SVIDResponse>;

function serve(script: Script): Promise<AsyncDisposable> {
  let streams = 0;
  const unused = () => Promise.reject(new NsmError("UNIMPLEMENTED", "unused", "not in this test"));
  return openPlainServer({ path, mode: 0o600, log: silentLogger }, (add) =>
    add(SpiffeWorkloadAPI, {
      fetchX509SVID: (_, call) => script(streams++, call),
      fetchX509Bundles: (_, call) => stay(call),
      fetchJWTBundles: (_, call) => stay(call),
      fetchJWTSVID: unused,
      validateJWTSVID: unused,
    }),
  );
}

/** These messages, then silence until the call is over. */
async function* stay<T>({ signal }: Pick<Caller, "signal">, ...messages: readonly T[]): AsyncGenerator<T> {
  yield* messages;
  if (!signal.aborted)
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

function open(
  options: { readonly waitMs?: number; readonly clock?: Clock; readonly signal?: AbortSignal } = {},
) {
  const { signal = new AbortController().signal, ...rest } = options;
  return openX509Source({ socket: `unix://${path}`, log: silentLogger, waitMs: 5000, signal, ...rest });
}

function messageOfSnapshot({ svid, bundles }: X509Snapshot): X509SVIDResponse {
  return create(X509SVIDResponseSchema, {
    svids: [
      {
        spiffeId: svid.id,
        x509Svid: Buffer.concat(svid.chain.map(({ raw }) => raw)),
        x509SvidKey: svid.privateKey.export({ type: "pkcs8", format: "der" }),
        bundle: Buffer.concat([...bundles.values()].flat().map(({ raw }) => raw)),
      },
    ],
  });
}

async function newMessage(name = "/x"): Promise<X509SVIDResponse> {
  return messageOfSnapshot(await authority.issue(name));
}

/** Waits until the source has a snapshot of this generation. */
async function generation(source: X509Source, number: number): Promise<X509Snapshot> {
  return vi.waitFor(
    () => {
      const snapshot = source.current();
      expect(snapshot.generation).toBe(number);
      return snapshot;
    },
    { timeout: 5000, interval: 5 },
  );
}

test("the first message becomes the snapshot; the request carries the security header", async () => {
  const values: (readonly string[])[] = [];
  const message = await newMessage();
  stack.use(
    await serve(async function* (_, call) {
      values.push(call.metadata.get("workload.spiffe.io"));
      yield* stay(call, message);
    }),
  );
  const source = stack.use(await open());
  const { svid, bundles, generation } = source.current();
  expect(svid).toMatchObject({
    id: "spiffe://a.test/x",
    privateKeyPem: expect.stringContaining("BEGIN PRIVATE"),
  });
  expect(svid.chain[0]?.checkPrivateKey(svid.privateKey)).toBe(true);
  expect([...bundles.keys()]).toEqual(["a.test"]);
  expect(generation).toBe(1);
  expect(values).toEqual([["true"]]);
});

test("each message replaces SVID, key and bundles together; equal bundles stay the same object", async () => {
  const other = await makeAuthority("b.test");
  const messages = [await newMessage(), await newMessage(), await newMessage()] as const;
  messages[2].federatedBundles = { "spiffe://b.test": other.ca.der };
  const push = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const;
  stack.use(
    await serve(async function* (_, call) {
      yield messages[0];
      await push[0].promise;
      yield messages[1];
      await push[1].promise;
      yield* stay(call, messages[2]);
    }),
  );
  const source = stack.use(await open());
  const seen: number[] = [];
  const listener = source.onChange((snapshot) => seen.push(snapshot.generation));
  const first = source.current();
  push[0].resolve();
  const second = await generation(source, 2);
  expect(second.svid.chainPem).not.toBe(first.svid.chainPem);
  expect(second.bundles).toBe(first.bundles);
  expect(seen).toEqual([2]);
  listener[Symbol.dispose]();
  push[1].resolve();
  const last = await generation(source, 3);
  expect([...last.bundles.keys()].sort()).toEqual(["a.test", "b.test"]);
  expect(last.bundles).not.toBe(first.bundles);
  expect(first.bundles.size).toBe(1);
  expect(seen).toEqual([2]);
});

test("the same message again is no change", async () => {
  const [same, next] = [await newMessage(), await newMessage()];
  stack.use(await serve((_, call) => stay(call, same, same, next)));
  const { svid } = await generation(stack.use(await open()), 2);
  expect(svid.chain[0]?.raw.equals(next.svids[0]?.x509Svid ?? Buffer.alloc(0))).toBe(true);
});

test("an identity that was not renewed is not used beyond its end", async () => {
  const message = await newMessage();
  stack.use(await serve((_, call) => stay(call, message)));
  let ahead = 0;
  const clock: Clock = { ...systemClock, now: () => Date.now() + ahead };
  const source = stack.use(await open({ clock }));
  expect(source.current().generation).toBe(1);
  ahead = 2 * 3_600_000;
  expect(() => source.current()).toThrow(
    expect.objectContaining({ code: "UNAVAILABLE", reason: "identity-expired" }),
  );
});

describe("a bad message is discarded and the last snapshot kept", () => {
  test.each<[name: string, spoil: (message: X509SVIDResponse) => void]>([
    ["no SVID", (message) => void (message.svids = [])],
    ["bad id", (message) => spoilFirst(message, (svid) => void (svid.spiffeId = "spiffe://a.test"))],
    [
      "id of another certificate",
      (message) => spoilFirst(message, (svid) => void (svid.spiffeId = "spiffe://a.test/y")),
    ],
    ["no certificate", (message) => spoilFirst(message, (svid) => void (svid.x509Svid = new Uint8Array()))],
    [
      "cut certificate",
      (message) => spoilFirst(message, (svid) => void (svid.x509Svid = svid.x509Svid.subarray(0, -1))),
    ],
    ["no key", (message) => spoilFirst(message, (svid) => void (svid.x509SvidKey = new Uint8Array()))],
    ["empty bundle", (message) => spoilFirst(message, (svid) => void (svid.bundle = new Uint8Array()))],
    ["foreign bundle", (message) => spoilFirst(message, (svid) => void (svid.bundle = svid.x509Svid))],
    ["bad federated id", (message) => void (message.federatedBundles = { "b.test": new Uint8Array() })],
    [
      "federated id with a path",
      (message) => void (message.federatedBundles = { "spiffe://b.test/x": new Uint8Array() }),
    ],
    [
      "federated rubbish",
      (message) => void (message.federatedBundles = { "spiffe://b.test": Buffer.from("x") }),
    ],
  ])("%s", async (_, spoil) => {
    const [good, bad, next] = [await newMessage(), await newMessage(), await newMessage()];
    spoil(bad);
    const push = Promise.withResolvers<void>();
    stack.use(
      await serve(async function* (_, call) {
        yield good;
        await push.promise;
        yield* stay(call, bad, next);
      }),
    );
    const source = stack.use(await open());
    const ids: string[] = [];
    source.onChange(({ svid }) => ids.push(svid.chainPem));
    push.resolve();
    const { svid } = await generation(source, 2);
    expect(ids).toEqual([svid.chainPem]);
  });

  test("a second SVID of the message that is bad", async () => {
    const [good, next] = [await newMessage(), await newMessage()];
    const bad = await newMessage();
    bad.svids.push(...(await newMessage("/y")).svids);
    for (const svid of bad.svids) svid.spiffeId = "spiffe://a.test/x";
    stack.use(await serve((_, call) => stay(call, good, bad, next)));
    const { svid } = await generation(stack.use(await open()), 2);
    expect(svid.chain[0]?.raw.equals(next.svids[0]?.x509Svid ?? Buffer.alloc(0))).toBe(true);
  });
});

type Svid = X509SVIDResponse["svids"][number];
function spoilFirst(message: X509SVIDResponse, spoil: (svid: Svid) => void): void {
  for (const svid of message.svids.slice(0, 1)) spoil(svid);
}

describe("streams", () => {
  test("that end are opened again, the last snapshot stays meanwhile", async () => {
    const messages = [await newMessage(), await newMessage()] as const;
    stack.use(
      await serve(async function* (stream, call) {
        yield stream === 0 ? messages[0] : messages[1];
        if (stream > 0) yield* stay(call);
      }),
    );
    const source = stack.use(await open());
    expect(source.current().generation).toBe(1);
    await generation(source, 2);
  });

  test("come back after a restart of the server, and the snapshot outlives the pause", async () => {
    const messages = [await newMessage(), await newMessage()] as const;
    const script: (n: 0 | 1) => Script = (n) => (_, call) => stay(call, messages[n]);
    const first = await serve(script(0));
    const source = stack.use(await open());
    await first[Symbol.asyncDispose]();
    expect(source.current().generation).toBe(1);
    stack.use(await serve(script(1)));
    await generation(source, 2);
  });

  test("that are refused later withdraw the identity, until one is given again", async () => {
    const messages = [await newMessage(), await newMessage()] as const;
    const [refuse, grant] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let isGranted = false;
    void grant.promise.then(() => (isGranted = true));
    stack.use(
      await serve(async function* (stream, call) {
        if (stream === 0) {
          yield messages[0];
          await refuse.promise;
          throw denied;
        }
        if (!isGranted) throw denied;
        yield* stay(call, messages[1]);
      }),
    );
    const source = stack.use(await open());
    refuse.resolve();
    await vi.waitFor(
      () =>
        expect(() => source.current()).toThrow(
          expect.objectContaining({ code: "UNAVAILABLE", reason: "identity-withdrawn" }),
        ),
      { timeout: 5000 },
    );
    grant.resolve();
    await generation(source, 2);
  });

  test("that never begin are given up after 10 s and opened again", async () => {
    const message = await newMessage();
    let streams = 0;
    stack.use(
      await serve(async function* (stream, call) {
        streams = stream + 1;
        if (stream > 0) yield* stay(call, message);
      }),
    );
    const fast: Clock = { ...systemClock, timer: (ms, run) => systemClock.timer(ms / 100, run) };
    const source = stack.use(await open({ clock: fast, waitMs: 500_000 }));
    expect(source.current().generation).toBe(1);
    expect(streams).toBe(2);
  });
});

describe("at start", () => {
  test("a missing socket is waited for", async () => {
    const message = await newMessage();
    const opening = open();
    await new Promise((resolve) => setImmediate(resolve));
    stack.use(await serve((_, call) => stay(call, message)));
    expect(stack.use(await opening).current().generation).toBe(1);
  });

  test("one that stays missing is named with its variable and the remedy", async () => {
    await expect(open({ waitMs: 200 })).rejects.toMatchObject({
      code: "UNAVAILABLE",
      reason: "identity-unavailable",
      message: expect.stringMatching(
        new RegExp(`unix://${path}.*SPIFFE_ENDPOINT_SOCKET.*ENOENT.*"nsm identity".*SPIRE`),
      ),
    });
  });

  test("a refusal is tried again, then told in the server's words", async () => {
    let streams = 0;
    stack.use(
      // oxlint-disable-next-line eslint/require-yield -- it refuses
      await serve(async function* (stream) {
        streams = stream + 1;
        throw denied;
      }),
    );
    await expect(open({ waitMs: 500 })).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
      message: expect.stringContaining("no registration fits"),
    });
    expect(streams).toBeGreaterThan(1);
  });

  test.each(["INVALID_ARGUMENT", "UNIMPLEMENTED"] as const)("%s is never tried again", async (code) => {
    let streams = 0;
    stack.use(
      // oxlint-disable-next-line eslint/require-yield -- it refuses
      await serve(async function* (stream) {
        streams = stream + 1;
        throw new NsmError(code, "x", "no");
      }),
    );
    await expect(open()).rejects.toMatchObject({ code });
    expect(streams).toBe(1);
  });

  test("a bad first message is told when the wait is over", async () => {
    stack.use(await serve((_, call) => stay(call, create(X509SVIDResponseSchema))));
    await expect(open({ waitMs: 300 })).rejects.toThrow(/it holds no SVID/);
  });

  test("an abort ends the wait", async () => {
    const controller = new AbortController();
    const opening = open({ signal: controller.signal });
    controller.abort();
    await expect(opening).rejects.toMatchObject({ code: "CANCELLED" });
  });
});

test("an API without JWTs says so", async () => {
  stack.use(await serve((_, call) => stay(call)));
  const options = { socket: `unix://${path}`, signal: new AbortController().signal };
  await expect(fetchJwtSvid(options, ["x"])).rejects.toMatchObject({ code: "UNIMPLEMENTED" });
});

test("SPIFFE_ENDPOINT_SOCKET is unix:///path or tcp://ip:port", () => {
  expect(parseEndpointSocket("unix:///run/x.sock")).toEqual({ kind: "unix", path: "/run/x.sock" });
  expect(parseEndpointSocket("tcp://[::1]:80")).toEqual({ kind: "tcp", host: "::1", port: 80 });
  for (const text of [
    "tcp://localhost:80",
    "tcp://127.0.0.1",
    "unix://host/x",
    "unix:x",
    "unix:///x?y",
    "/run/x.sock",
    "",
  ])
    expect(() => parseEndpointSocket(text)).toThrow(NsmError);
});
