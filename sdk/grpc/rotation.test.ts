/** A server's new identity reaches its sessions before the old one ends, and breaks nothing. */
import type { X509Certificate } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionEventSchema, ConnectionSchema, MonitorConnection } from "../../api/gen/connection_pb.js";
import { NetworkService, NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import { openBed, until } from "../../test/support/grpc.ts";
import type { Bed, ServeOptions } from "../../test/support/grpc.ts";
import { systemClock } from "../clock.ts";
import { claimedExpiryMs, isSignedBy } from "../jwt.ts";
import { createTokenMinter } from "../token.ts";
import type { SessionPool, Target } from "./sessions.ts";

const request = create(NetworkServiceRequestSchema);
const selector = create(MonitorConnection.method.monitorConnections.input);

/** Answers a Request with a token for its caller, as a hop writes it into its path segment; streams stay open and silent. */
function mints(): Pick<ServeOptions, "service" | "monitor"> {
  const minter = createTokenMinter({ clock: systemClock });
  return {
    service: {
      request: (_, { peer }) => {
        const { token } = minter.mint(peer.own.svid, peer.spiffeId, peer.certificate.validToDate.getTime());
        return Promise.resolve(create(ConnectionSchema, { id: token }));
      },
    },
    async *monitor(_, { signal }) {
      yield create(ConnectionEventSchema);
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
    },
  };
}

/** A call whose answer holds a token that this very session's server signed, and that has not expired. */
async function verdictOf(pool: SessionPool, target: Target): Promise<string> {
  let shown: X509Certificate | undefined;
  const { response } = await pool.unary(target, NetworkService.method.request, request, {
    timeoutMs: 5000,
    metadata: ({ peerCertificate }) => {
      shown = peerCertificate;
      return {};
    },
  });
  if (shown === undefined || !isSignedBy(response.id, shown)) return "signed with another key than was shown";
  return (claimedExpiryMs(response.id) ?? 0) > Date.now() ? "ok" : "expired";
}

/** A reader of a long stream that moves with its session; `news` gets "list" at each beginning, and what broke it. */
async function watch(pool: SessionPool, target: Target, news: string[], signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const replaced = new AbortController();
    try {
      const messages = pool.stream(target, MonitorConnection.method.monitorConnections, selector, {
        signal: AbortSignal.any([signal, replaced.signal]),
        onReplaced: () => replaced.abort(),
      });
      for await (const _ of messages) news.push("list");
    } catch (error) {
      if (!signal.aborted && !replaced.signal.aborted) news.push(`broken: ${String(error)}`);
    }
  }
}

async function underLoad(
  bed: Bed,
  target: Target,
  rotateEveryMs: number,
  rounds: number,
  rotate: () => Promise<unknown>,
) {
  const pool = bed.pool(await bed.source("/client"));
  const verdicts = new Map<string, number>();
  const news: string[] = [];
  const stop = new AbortController();
  const load = async () => {
    while (!stop.signal.aborted) {
      const verdict = await verdictOf(pool, target).catch(String);
      verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1);
    }
  };
  const running = [...Array.from({ length: 4 }, load), watch(pool, target, news, stop.signal)];
  for (let i = 0; i < rounds; i++) {
    const atMs = performance.now() + rotateEveryMs;
    await until("the next rotation", () => performance.now() > atMs);
    await rotate();
  }
  stop.abort();
  await Promise.all(running);
  return { verdicts, news };
}

test.concurrent.each(["unix", "tcp"])(
  "a server whose certificate lives for 4 s fails no call in 10 s and always shows the one that it signs with (%s)",
  async (transport) => {
    await using bed = await openBed();
    const source = await bed.source("/server", 4000);
    const listen = [transport === "unix" ? bed.url() : "tcp://127.0.0.1:0"];
    const server = await bed.serve({ source, listen, ...mints() });
    const target = { url: server.addresses[0] ?? "" };
    const { verdicts, news } = await underLoad(bed, target, 1500, 7, () => source.rotate());
    expect([...verdicts.keys()]).toEqual(["ok"]);
    expect(verdicts.get("ok")).toBeGreaterThan(200);
    // The stream began anew with some of the sessions, and never broke.
    expect(new Set(news)).toEqual(new Set(["list"]));
    expect(news.length).toBeGreaterThan(3);
  },
  20_000,
);

test("calls get through where sessions end as soon as they have begun", async () => {
  await using bed = await openBed();
  await bed.serve({ ...mints(), limits: { maxAgeMs: 2 } });
  for (let i = 0; i < 50; i++)
    expect(await verdictOf(bed.pool(await bed.source("/client")), { url: bed.url() })).toBe("ok");
});

test("a call in progress ends in its session, with the identity shown there, while new ones have left it", async () => {
  await using bed = await openBed();
  const source = await bed.source("/server", 3000);
  const release = Promise.withResolvers<void>();
  let isFirst = true;
  await bed.serve({
    source,
    service: {
      async request(_, { peer }) {
        if (isFirst) {
          isFirst = false;
          await release.promise;
        }
        return create(ConnectionSchema, { id: `${peer.own.generation}` });
      },
    },
  });
  const pool = bed.pool(await bed.source("/client"));
  const ask = async () =>
    (await pool.unary({ url: bed.url() }, NetworkService.method.request, request)).response.id;
  const slow = ask();
  await until("the call", () => !isFirst);
  await source.rotate();
  await until("a new session", async () => (await ask()) === "2");
  release.resolve();
  expect(await slow).toBe("1");
});

test("a session that has only streams is replaced, too, and a stream that stays goes on", async () => {
  await using bed = await openBed();
  const source = await bed.source("/server", 3000);
  const push = Promise.withResolvers<void>();
  await bed.serve({
    source,
    async *monitor() {
      yield create(ConnectionEventSchema);
      await push.promise;
      yield create(ConnectionEventSchema);
    },
  });
  const pool = bed.pool(await bed.source("/client"));
  let replaced = 0;
  const stream = pool.stream({ url: bed.url() }, MonitorConnection.method.monitorConnections, selector, {
    onReplaced: () => replaced++,
  });
  await stream.next();
  await source.rotate();
  await until("told to move", () => replaced === 1);
  push.resolve();
  expect((await stream.next()).done).toBe(false);
  expect((await stream.next()).done).toBe(true);
});
