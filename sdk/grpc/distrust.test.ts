/** Sessions whose peer the newest bundles do not verify any more. */
import { create } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ConnectionEventSchema, ConnectionSchema, MonitorConnection } from "../../api/gen/connection_pb.js";
import { NetworkService, NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import { makeAuthority, x509Of } from "../../test/support/certificates.ts";
import type { TestAuthority } from "../../test/support/certificates.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { failureOf, openBed, until } from "../../test/support/grpc.ts";
import type { Bed } from "../../test/support/grpc.ts";
import { makeSource } from "../../test/support/identity.ts";
import type { TestSource } from "../../test/support/identity.ts";
import type { NsmError } from "../errors.ts";
import { silentLogger } from "../log.ts";
import type { X509Snapshot } from "../spiffe/source.ts";
import { verifySvid } from "../spiffe/verify.ts";
import { createDistrust } from "./distrust.ts";
import type { SessionPool } from "./sessions.ts";

type Bundles = X509Snapshot["bundles"];

const { signal } = new AbortController();

let bed: Bed;
/** A second CA of the bed's trust domain. */
let second: TestAuthority;
let both: Bundles;
let onlyFirst: Bundles;
beforeEach(async () => {
  bed = await openBed();
  second = await makeAuthority(bed.authority.trustDomain);
  onlyFirst = new Map(bed.authority.bundles);
  both = new Map([[second.trustDomain, [x509Of(bed.authority.ca), x509Of(second.ca)]]]);
});
afterEach(() => bed[Symbol.asyncDispose]());

const identity = (authority: TestAuthority, path: string): Promise<TestSource> =>
  makeSource(authority, path, { bundles: both });

/** Serves streams that stay open, and Requests that are answered with the name of the session, or never for the id `hang`. */
async function serve(source: TestSource, name = "server"): Promise<string> {
  const ended = async ({ signal: gone }: { readonly signal: AbortSignal }) => {
    await new Promise<void>((resolve) => gone.addEventListener("abort", () => resolve(), { once: true }));
    gone.throwIfAborted();
  };
  await bed.serve({
    source,
    listen: [bed.url(name)],
    service: {
      async request({ connection }, call) {
        if (connection?.id === "hang") await ended(call);
        return create(ConnectionSchema, { id: call.peer.session });
      },
    },
    async *monitor(_, call) {
      yield create(ConnectionEventSchema);
      await ended(call);
    },
  });
  return bed.url(name);
}

const requestOf = (id: string) => create(NetworkServiceRequestSchema, { connection: { id } });

async function sessionOf(pool: SessionPool, url: string): Promise<string> {
  return (await pool.unary({ url }, NetworkService.method.request, requestOf(""))).response.id;
}

/** A stream and a Request in progress; `ends` have what they ended with, in any order. */
async function busy(pool: SessionPool, url: string): Promise<{ readonly ends: readonly NsmError[] }> {
  const ends: NsmError[] = [];
  const begun = Promise.withResolvers<void>();
  const { monitorConnections } = MonitorConnection.method;
  const read = async () => {
    for await (const _ of pool.stream({ url }, monitorConnections, create(monitorConnections.input)))
      begun.resolve();
  };
  void failureOf(read()).then((error) => ends.push(error));
  await begun.promise;
  const hanging = pool.unary({ url }, NetworkService.method.request, requestOf("hang"), { signal });
  void failureOf(hanging).then((error) => ends.push(error));
  return { ends };
}

const distrusted = expect.objectContaining({ code: "UNAVAILABLE", reason: "peer-distrusted" });

test("a server ends the sessions of a peer whose CA was withdrawn, within a second, and no others", async () => {
  const server = await identity(bed.authority, "/server");
  const url = await serve(server);
  const [good, bad] = [await identity(bed.authority, "/good"), await identity(second, "/bad")].map((source) =>
    bed.pool(source),
  );
  if (good === undefined || bad === undefined) throw new Error("two pools");
  const [goodCalls, badCalls] = [await busy(good, url), await busy(bad, url)];
  const session = await sessionOf(good, url);

  const beganMs = performance.now();
  server.push({ bundles: onlyFirst });
  await until("both calls ended", () => badCalls.ends.length === 2);
  expect(performance.now() - beganMs).toBeLessThan(1000);
  expect(badCalls.ends).toEqual([distrusted, distrusted]);
  expect(badCalls.ends[0]?.message).toMatch(/spiffe:\/\/example\.org\/bad.*no path to a CA/);
  await expect(sessionOf(bad, url)).rejects.toMatchObject({ code: "UNAVAILABLE" });
  expect(goodCalls.ends).toEqual([]);
  expect(await sessionOf(good, url)).toBe(session);
});

test("a server whose CA is withdrawn while a session with it is made gets none, and the process goes on", async () => {
  const url = await serve(await identity(second, "/server"));
  const client = await identity(bed.authority, "/client");
  const pool = bed.pool(client);
  const failed = failureOf(sessionOf(pool, url));
  client.push({ bundles: onlyFirst });
  expect(await failed).toMatchObject({ code: "UNAVAILABLE", reason: "peer-distrusted" });
  const good = await serve(await identity(bed.authority, "/good"), "good");
  expect(await sessionOf(pool, good)).not.toBe("");
});

test("a client ends its sessions with a server whose CA was withdrawn, within a second, and no others", async () => {
  const [good, bad] = [
    await serve(await identity(bed.authority, "/good"), "good"),
    await serve(await identity(second, "/bad"), "bad"),
  ];
  const client = await identity(bed.authority, "/client");
  const pool = bed.pool(client);
  const [goodCalls, badCalls] = [await busy(pool, good), await busy(pool, bad)];
  const session = await sessionOf(pool, good);

  const beganMs = performance.now();
  client.push({ bundles: onlyFirst });
  await until("both calls ended", () => badCalls.ends.length === 2);
  expect(performance.now() - beganMs).toBeLessThan(1000);
  expect(badCalls.ends).toEqual([distrusted, distrusted]);
  await expect(sessionOf(pool, bad)).rejects.toMatchObject({ reason: "svid-untrusted" });
  expect(goodCalls.ends).toEqual([]);
  expect(await sessionOf(pool, good)).toBe(session);
});

test("bundles that change otherwise leave every session as it is", async () => {
  const server = await identity(bed.authority, "/server");
  const url = await serve(server);
  const client = await identity(bed.authority, "/client");
  const pool = bed.pool(client);
  const calls = await busy(pool, url);
  const session = await sessionOf(pool, url);
  const other = await makeAuthority("other.test");
  for (const source of [server, client]) source.push({ bundles: new Map([...both, ...other.bundles]) });
  expect(await sessionOf(pool, url)).toBe(session);
  for (const source of [server, client]) source.push({ bundles: onlyFirst });
  expect(await sessionOf(pool, url)).toBe(session);
  expect(calls.ends).toEqual([]);
});

describe("one chain", () => {
  async function watched(shownBundles: Bundles, options: { readonly lifetimeMs?: number } = {}) {
    const source = await identity(bed.authority, "/us");
    const clock = createFakeClock(Date.now());
    const distrust = createDistrust({ source, verify: verifySvid, clock, log: silentLogger });
    const { svid } = await second.issue("/them", options);
    const ends: NsmError[] = [];
    const watch = () =>
      distrust.watch(
        { id: svid.id, chain: svid.chain.map(({ raw }) => raw), bundles: shownBundles },
        (error) => ends.push(error),
      );
    return { source, clock, distrust, watch, ends };
  }

  test("ends once, and not after it was disposed of", async () => {
    const { source, watch, ends } = await watched(both);
    watch();
    const left = watch();
    left[Symbol.dispose]();
    source.push({ bundles: onlyFirst });
    source.push({ bundles: new Map() });
    expect(ends).toEqual([distrusted]);
  });

  test("of a handshake that began before the change ends as soon as it is watched", async () => {
    const { source, watch, ends } = await watched(both);
    source.push({ bundles: onlyFirst });
    watch();
    expect(ends).toEqual([distrusted]);
  });

  test("that has run out is judged as of its last moment", async () => {
    const { source, clock, watch, ends } = await watched(both, { lifetimeMs: 1000 });
    watch();
    await clock.advance(3_600_000 * 24);
    source.push({ bundles: new Map(both) });
    expect(ends).toEqual([]);
    source.push({ bundles: onlyFirst });
    expect(ends).toEqual([distrusted]);
  });

  test("is forgotten when the server or the pool closes", async () => {
    const { source, distrust, watch, ends } = await watched(both);
    watch();
    distrust[Symbol.dispose]();
    source.push({ bundles: onlyFirst });
    expect(ends).toEqual([]);
  });
});
