import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { afterEach, describe, expect, test } from "vitest";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import type { MatchSchema } from "../api/gen/registry_pb.js";
import { silentLogger } from "../sdk/log.ts";
import type { KnownService } from "../sdk/registry/view.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { createMoves } from "./moves.ts";

type Matches = readonly MessageInitShape<typeof MatchSchema>[];
const to = (app: string) => ({
  routes: [{ destinationSelector: { app } }],
});

const forwarder = (name: string, labels: Record<string, string>) =>
  create(NetworkServiceEndpointSchema, {
    name,
    networkServiceNames: ["forwarder"],
    networkServiceLabels: { forwarder: { labels } },
  });

const FAILBACK_MS = 30_000;

let cleanup = new DisposableStack();
afterEach(() => {
  cleanup.dispose();
  cleanup = new DisposableStack();
});

/** Endpoints are named after their label `app`; a digit behind it is the tier: `a`, `b1`. */
function build() {
  const clock = createFakeClock();
  let listener: (() => void) | undefined;
  let known: KnownService | undefined;
  const published = [forwarder("f", { p2p: "true" }), forwarder("g", { fast: "true" })];
  const asked: string[] = [];
  const closed: string[] = [];
  const remarks = new Map<string, string | undefined>();
  const audience = { heard: "asked" as "asked" | "nobody" | "not-understood" };
  const notes: string[] = [];
  const moves = cleanup.use(
    createMoves({
      view: {
        follow(_, onChange) {
          listener = onChange;
          return { known: () => known, [Symbol.dispose]: () => (listener = undefined) };
        },
      },
      local: { published: () => published },
      forwarderService: "forwarder",
      store: {
        askForNewChoice(id) {
          asked.push(id);
          return audience.heard;
        },
        remark: (id, why) => void remarks.set(id, why),
      },
      history: { note: (_, __, why = "") => notes.push(why) },
      clock,
      log: silentLogger,
      random: () => 0.5,
      failbackMs: FAILBACK_MS,
    }),
  );
  const tell = (
    matches: Matches | undefined,
    names: readonly string[],
    apps: Readonly<Record<string, string>> = {},
  ) => {
    known = {
      service:
        matches && create(NetworkServiceSchema, { name: "service", payload: "IP", matches: [...matches] }),
      endpoints: names.map((name) => {
        const [first = "", tier] = name;
        const app = apps[name] ?? first;
        const labels = { app, ...(tier !== undefined && { "nsm.io/tier": tier }) };
        const all = { service: { labels } };
        return create(NetworkServiceEndpointSchema, {
          name,
          networkServiceNames: ["service"],
          networkServiceLabels: all,
        });
      }),
    };
    listener?.();
  };
  const keep = (id: string, endpoint: string, labels: Record<string, string> = {}, by = "f") =>
    moves.keep({
      id,
      service: "service",
      labels,
      endpoint,
      forwarder: by,
      close: (why) => Promise.resolve(void closed.push(`${id} ${why}`)),
    });
  return { clock, moves, tell, keep, asked, closed, remarks, audience, notes, follows: () => listener };
}

describe("a wire whose service is edited", () => {
  test("moves when it does not match any more, once the burst of edits is over", async () => {
    const { clock, tell, keep, asked } = build();
    tell([to("a")], ["a", "b"]);
    keep("1", "a");
    tell([to("b")], ["a", "b"]);
    await clock.advance(400);
    expect(asked).toEqual([]);
    await clock.advance(200);
    expect(asked).toEqual(["1"]);
  });

  test("stays when the edit is taken back within the burst", async () => {
    const { clock, tell, keep, asked } = build();
    tell([to("a")], ["a", "b"]);
    keep("1", "a");
    tell([to("b")], ["a", "b"]);
    await clock.advance(300);
    tell([to("a")], ["a", "b"]);
    await clock.advance(60_000);
    expect(asked).toEqual([]);
  });

  test("moves when the labels of its endpoint do not match any more", async () => {
    const { clock, tell, keep, asked } = build();
    tell([to("a")], ["a", "b"], { b: "a" });
    keep("1", "a");
    keep("2", "b");
    tell([to("a")], ["a", "b"], { b: "another" });
    await clock.advance(60_000);
    expect(asked).toEqual(["2"]);
  });

  test("is judged by the match that fits its client", async () => {
    const { clock, tell, keep, asked } = build();
    tell([{ sourceSelector: { role: "x" }, ...to("a") }, to("b")], ["a", "b"]);
    keep("1", "a", { role: "x" });
    keep("2", "b");
    tell([{ sourceSelector: { role: "x" }, ...to("b") }, to("b")], ["a", "b"]);
    await clock.advance(60_000);
    expect(asked).toEqual(["1"]);
  });

  test("moves when it asks for another forwarder, if there is one", async () => {
    const { clock, tell, keep, asked, remarks } = build();
    tell([to("a")], ["a"]);
    keep("1", "a");
    tell([{ ...to("a"), metadata: { labels: { fast: "true" } } }], ["a"]);
    await clock.advance(1000);
    expect(asked).toEqual(["1"]);
    keep("1", "a", {}, "g");
    tell([{ ...to("a"), metadata: { labels: { slow: "true" } } }], ["a"]);
    await clock.advance(60_000);
    expect(asked).toEqual(["1"]);
    expect(remarks.get("1")).toBe("forwarder-mismatch");
  });

  test("is not asked before the registry has told what there is", async () => {
    const { clock, tell, keep, asked } = build();
    keep("1", "a");
    await clock.advance(60_000);
    expect(asked).toEqual([]);
    tell([to("b")], ["a", "b"]);
    await clock.advance(1000);
    expect(asked).toEqual(["1"]);
  });
});

describe("a wire that would be served by nobody else", () => {
  test.for([
    ["no-candidates", [to("z")]],
    ["service-not-found", undefined],
  ] as const)("stays, and says %s", async ([why, matches]) => {
    const { clock, tell, keep, asked, closed, remarks, notes } = build();
    tell([to("a")], ["a", "b"]);
    expect(keep("1", "a")).toBeUndefined();
    tell(matches, ["a", "b"]);
    await clock.advance(60_000);
    expect([asked, closed]).toEqual([[], []]);
    expect(remarks.get("1")).toBe(why);
    expect(keep("1", "a")).toBe(why);
    expect(notes).toEqual([`${why}; it stays, since nobody else would serve it`]);
    tell([to("a")], ["a", "b"]);
    await clock.advance(1000);
    expect(remarks.get("1")).toBeUndefined();
  });

  test("stays when its endpoint is not registered: whether that is dead is for others to say", async () => {
    const { clock, tell, keep, asked } = build();
    tell([to("a")], ["a", "b"]);
    keep("1", "a");
    tell([to("a")], ["b"]);
    await clock.advance(60_000);
    expect(asked).toEqual([]);
  });
});

test("wires that move together are spread", async () => {
  const { clock, tell, keep, asked } = build();
  tell([to("a")], ["a", "b"]);
  for (let i = 0; i < 40; i++) keep(String(i), "a");
  tell([to("b")], ["a", "b"]);
  await clock.advance(500);
  expect(asked).toHaveLength(0);
  await clock.advance(1000);
  expect(asked).toHaveLength(40);
});

describe("a wire on a backup", () => {
  test("returns when the primary has been back for long enough", async () => {
    const { clock, tell, keep, asked } = build();
    tell([], ["b1"]);
    keep("1", "b1");
    tell([], ["a", "b1"]);
    await clock.advance(FAILBACK_MS);
    expect(asked).toEqual([]);
    await clock.advance(1000);
    expect(asked).toEqual(["1"]);
  });

  test("stays while the primary comes and goes", async () => {
    const { clock, tell, keep, asked } = build();
    tell([], ["b1"]);
    keep("1", "b1");
    for (let i = 0; i < 10; i++) {
      tell([], ["a", "b1"]);
      await clock.advance(FAILBACK_MS - 5000);
      tell([], ["b1"]);
      await clock.advance(2000);
    }
    expect(asked).toEqual([]);
  });

  test("a primary that was away for less time than an edit is waited for has to stay anew", async () => {
    const { clock, tell, keep, asked } = build();
    tell([], ["a", "b1"]);
    keep("1", "b1");
    await clock.advance(FAILBACK_MS - 1000);
    tell([], ["b1"]);
    await clock.advance(300);
    tell([], ["a", "b1"]);
    await clock.advance(FAILBACK_MS);
    expect(asked).toEqual([]);
    await clock.advance(1000);
    expect(asked).toEqual(["1"]);
  });

  test("returns ever later to a primary that it has to leave each time, until that has stayed", async () => {
    const { clock, tell, keep, asked } = build();
    const waits: number[] = [];
    const flap = async () => {
      tell([], ["a", "b1"]);
      keep("1", "b1");
      const before = asked.length;
      for (let ms = 0; asked.length === before; ms += 1000) {
        await clock.advance(1000);
        waits[before] = ms;
      }
      keep("1", "a");
      await clock.advance(60_000);
      tell([], ["b1"]); // the primary goes
      keep("1", "b1");
    };
    for (let i = 0; i < 6; i++) await flap();
    for (const [i, ms] of waits.entries())
      expect(Math.abs(ms - Math.min(FAILBACK_MS * 2 ** i, 600_000))).toBeLessThanOrEqual(2000);
    tell([], ["a", "b1"]);
    keep("1", "a");
    await clock.advance(30 * 60_000);
    await flap();
    expect(waits.at(-1)).toBeLessThanOrEqual(FAILBACK_MS + 2000);
  });

  test("is asked ever more seldom while the primary does not serve it", async () => {
    const { clock, tell, keep, asked } = build();
    tell([], ["a", "b1"]);
    keep("1", "b1");
    for (let i = 0; i < 60; i++) {
      await clock.advance(60_000);
      keep("1", "b1"); // the client tried, and was served by the backup once more
    }
    expect(asked.length).toBeGreaterThan(3);
    expect(asked.length).toBeLessThan(16);
  });

  test("does not move for another endpoint of its tier, nor for one that is nearer", async () => {
    const { clock, tell, keep, asked } = build();
    tell([], ["a", "b"]);
    keep("1", "a", { "nsm.io/locality": "prefer", nodeName: "n1" });
    tell([], ["a", "b", "c"]);
    await clock.advance(10 * FAILBACK_MS);
    expect(asked).toEqual([]);
  });

  test("an endpoint of an earlier match that falls through counts as the primary", async () => {
    const { clock, tell, keep, asked } = build();
    tell([{ ...to("a"), fallthrough: true }, to("b")], ["b"]);
    keep("1", "b");
    tell([{ ...to("a"), fallthrough: true }, to("b")], ["a", "b"]);
    await clock.advance(FAILBACK_MS - 1000);
    expect(asked).toEqual([]);
    await clock.advance(3000);
    expect(asked).toEqual(["1"]);
  });
});

describe("a client", () => {
  test("that does not choose anew by itself is closed, so that it heals", async () => {
    const { clock, tell, keep, asked, closed, audience } = build();
    audience.heard = "not-understood";
    tell([to("a")], ["a", "b"]);
    keep("1", "a");
    tell([to("b")], ["a", "b"]);
    await clock.advance(1000);
    expect(asked).toEqual(["1"]);
    expect(closed).toEqual([expect.stringMatching(/^1 endpoint-mismatch/)]);
  });

  test("that does not listen just now is given the time to", async () => {
    const { clock, tell, keep, asked, closed, audience } = build();
    audience.heard = "nobody";
    tell([to("a")], ["a", "b"]);
    keep("1", "a");
    tell([to("b")], ["a", "b"]);
    await clock.advance(3000);
    expect(closed).toEqual([]);
    audience.heard = "asked";
    await clock.advance(60_000);
    expect(asked.length).toBeGreaterThan(1);
    expect(closed).toEqual([]);
  });

  test("that never listens is closed", async () => {
    const { clock, tell, keep, closed, audience } = build();
    audience.heard = "nobody";
    tell([to("a")], ["a", "b"]);
    keep("1", "a");
    tell([to("b")], ["a", "b"]);
    await clock.advance(60_000);
    expect(closed).toHaveLength(1);
  });
});

test("what is closed leaves no timer and no watch behind", async () => {
  const { clock, moves, tell, keep, asked, follows } = build();
  tell([to("a")], ["a", "b"]);
  keep("1", "a");
  keep("2", "a");
  tell([to("b")], ["a", "b"]);
  moves.drop("1");
  expect(follows()).toBeDefined();
  moves.drop("2");
  expect(follows()).toBeUndefined();
  expect(clock.armed).toBe(0);
  await clock.advance(60_000);
  expect(asked).toEqual([]);
});
