import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import { callBy, connectionOn } from "../test/support/chain.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { makePeer } from "../test/support/peer.ts";
import type { Hops } from "./elements/next-hop.ts";
import { NOWHERE } from "./elements/target.ts";
import type { NextHop } from "./elements/target.ts";
import { NsmError } from "./errors.ts";
import { silentLogger } from "./log.ts";
import { repeatCloses } from "./repeat-closes.ts";

const CALL = callBy(await makePeer("/client", 1));
const HOP: NextHop = { url: "unix:///forwarder.sock" };
const away = () => new NsmError("UNAVAILABLE", "unreachable", "nobody listens there");
const LEASE_MS = 60_000;

function build() {
  const clock = createFakeClock();
  const heard: string[] = [];
  const state = { attempts: 0, failure: undefined as NsmError | undefined };
  const hops: Hops = {
    request(_, { connection }) {
      if (state.failure !== undefined || connection === undefined) return Promise.reject(away());
      return Promise.resolve(connection);
    },
    close(hop, { id }) {
      state.attempts++;
      if (state.failure !== undefined) return Promise.reject(state.failure);
      heard.push(`${id} at ${hop.url}`);
      return Promise.resolve();
    },
    follow: () => ({ [Symbol.dispose]: () => undefined }),
  };
  const repeated = repeatCloses(hops, { clock, log: silentLogger });
  const wire = (id: string) => {
    const connection = connectionOn(["client", "me", "next"], ["c", id, `behind ${id}`]);
    connection.id = id;
    if (connection.path !== undefined) connection.path.index = 1;
    const own = connection.path?.pathSegments[1];
    if (own !== undefined) own.expires = timestampFromMs(clock.now() + LEASE_MS);
    return connection;
  };
  const close = (id: string, hop = HOP, ctx: object = {}) =>
    repeated.close(hop, wire(id), { ...CALL, ...ctx }).then(
      () => "closed",
      (error: unknown) => (error instanceof NsmError ? error.reason : "failed"),
    );
  const ask = (id: string) =>
    repeated.request(HOP, create(NetworkServiceRequestSchema, { connection: wire(id) }), CALL);
  return { clock, heard, state, repeated, close, ask };
}

describe("a Close whose hop is away", () => {
  test("fails, and is repeated until the hop hears it; so are all others of that hop", async () => {
    const { clock, heard, state, close } = build();
    state.failure = away();
    expect(await Promise.all(["a", "b", "c"].map((id) => close(id)))).toEqual([
      "close-waits",
      "close-waits",
      "close-waits",
    ]);
    await clock.advance(10_000);
    expect(state.attempts).toBeLessThan(3 + 15); // one queue asks, not each Close
    state.failure = undefined;
    await clock.advance(2500);
    expect(heard.toSorted()).toEqual(["a", "b", "c"].map((id) => `${id} at ${HOP.url}`));
    expect(clock.armed).toBe(0);
  });

  test("ends with its lease", async () => {
    const { clock, heard, state, close } = build();
    state.failure = away();
    await close("a");
    await clock.advance(LEASE_MS + 2500);
    const { attempts } = state;
    state.failure = undefined;
    await clock.advance(LEASE_MS);
    expect([heard, state.attempts, clock.armed]).toEqual([[], attempts, 0]);
  });

  test.each([
    ["refuses it", new NsmError("PERMISSION_DENIED", "foreign-connection", "no")],
    ["repeats it itself", new NsmError("UNAVAILABLE", "close-waits", "later")],
  ])("is over when the hop %s", async (_, answer) => {
    const { clock, state, close } = build();
    state.failure = answer;
    expect(await close("a")).toBe(answer.reason);
    expect(clock.armed).toBe(0);
    state.failure = away();
    await close("b");
    state.failure = answer;
    await clock.advance(2500);
    expect(clock.armed).toBe(0);
  });

  test("goes where the hop is by then", async () => {
    const { clock, heard, close } = build();
    let found: NextHop | undefined;
    const again = { key: "forwarder f", find: () => found };
    expect(await close("a", { ...NOWHERE, again })).toBe("closed");
    await clock.advance(5000);
    expect(heard).toEqual([]);
    found = { url: "unix:///other.sock" };
    await clock.advance(2500);
    expect(heard).toEqual(["a at unix:///other.sock"]);
  });

  test("is forgotten when the connection is asked for again, unless that fails", async () => {
    const { clock, heard, state, close, ask } = build();
    state.failure = away();
    await close("a");
    await close("b");
    await expect(ask("a")).rejects.toThrow("nobody");
    state.failure = undefined;
    await ask("b");
    await clock.advance(5000);
    expect(heard).toEqual([`a at ${HOP.url}`]);
  });

  test("waits with no more than so many others, and of unknown connections with a few", async () => {
    const { clock, heard, state, close } = build();
    state.failure = away();
    const unknown = { established: false };
    for (let i = 0; i < 300; i++) await close(`unknown-${i}`, HOP, unknown);
    for (let i = 0; i < 4096; i++) await close(`known-${i}`);
    expect(await close("last")).toBe("unreachable");
    state.failure = undefined;
    await clock.advance(3000);
    for (let i = 0; heard.length < 4096 && i < 100_000; i++) await Promise.resolve();
    expect(heard.filter((each) => each.startsWith("unknown"))).toHaveLength(256);
    expect(heard).toHaveLength(4096);
  });

  test("waits no longer than its process", async () => {
    const { clock, heard, state, repeated, close } = build();
    state.failure = away();
    await close("a");
    repeated[Symbol.dispose]();
    state.failure = undefined;
    await clock.advance(5000);
    expect([heard, clock.armed]).toEqual([[], 0]);
  });
});
