/** Nodes that have vanished: their endpoints keep nobody from one that lives. */
import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import type { CallContext } from "./chain.ts";
import type { NextHop, WithNextHop } from "./elements/target.ts";
import { silentLogger } from "./log.ts";
import { callBy, createRecorder, requestOn } from "../test/support/chain.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { makePeer } from "../test/support/peer.ts";
import { createReach, patientTimer } from "./reach.ts";
import { selectEndpoint } from "./elements/select-endpoint.ts";

const HOP = { url: "tcp://192.0.2.1:5001" };
const OTHER = { url: "tcp://192.0.2.2:5001" };
const MANAGER = callBy(await makePeer("/nsmgr/node1"));

function build() {
  const clock = createFakeClock();
  /** Hops that say nothing. */
  const silent = new Set<string>([HOP.url]);
  const probed: string[] = [];
  const waiting = new Map<string, () => void>();
  const reach = createReach({
    clock,
    log: silentLogger,
    probe(hop, signal) {
      probed.push(hop.url);
      if (!silent.has(hop.url)) return Promise.resolve();
      return new Promise((resolve, reject) => {
        waiting.set(hop.url, resolve);
        signal.addEventListener("abort", () => reject(new Error("aborted")), { once: true });
      });
    },
  });
  /** Watches a Request to a hop for so long; true when it was given up. */
  const watch = async (hop: NextHop, ms: number, others: readonly NextHop[] = []) => {
    using watched = reach.watch(hop, () => others);
    await clock.advance(ms);
    return watched.signal.aborted;
  };
  return { clock, reach, silent, probed, watch, answer: (url: string) => waiting.get(url)?.() };
}

describe("a Request", () => {
  test("that is answered soon asks nobody", async () => {
    const { probed, watch, clock } = build();
    expect(await watch(HOP, 149)).toBe(false);
    expect(probed).toEqual([]);
    expect(clock.armed).toBe(0);
  });

  test("that takes long at a hop that answers is waited for", async () => {
    const { probed, watch, reach } = build();
    expect(await watch(OTHER, 3000)).toBe(false);
    expect(probed).toEqual([OTHER.url]);
    expect(reach.isLost(OTHER)).toBe(false);
  });

  test("to a hop that says nothing is given up, and the hop comes last for ten seconds", async () => {
    const { watch, reach, clock } = build();
    expect(await watch(HOP, 499)).toBe(false);
    expect(reach.isLost(HOP)).toBe(false);
    const { signal } = reach.watch(HOP, () => []);
    await clock.advance(500);
    expect(signal.reason).toMatchObject({ code: "UNAVAILABLE", reason: "hop-lost" });
    expect(reach.isLost(HOP)).toBe(true);
    await clock.advance(20_000);
    expect(reach.isLost(HOP)).toBe(false);
    expect(clock.armed).toBe(0);
  });

  test("within the node is not doubted: the kernel tells of the end there", async () => {
    const { watch, probed } = build();
    expect(await watch({ url: "unix:///proc/1/root/a.sock" }, 3000)).toBe(false);
    expect(probed).toEqual([]);
  });
});

test("while a hop is doubted the others are asked, each once", async () => {
  const { watch, reach, probed, silent } = build();
  silent.add(OTHER.url);
  await watch(HOP, 500, [HOP, OTHER, OTHER, { url: "unix:///a" }]);
  expect(probed).toEqual([HOP.url, OTHER.url]);
  expect([HOP, OTHER].map((hop) => reach.isLost(hop))).toEqual([true, true]);
});

test("a lost hop that answers after all is lost no longer", async () => {
  const { watch, reach, clock, answer } = build();
  await watch(HOP, 500);
  const back = reach.comesBack(HOP);
  answer(HOP.url);
  expect(await back).toBe(true);
  expect(reach.isLost(HOP)).toBe(false);
  expect(clock.armed).toBe(0);
});

test("one that never answers is waited for four seconds, by everybody together", async () => {
  const { watch, reach, clock, probed } = build();
  await watch(HOP, 500);
  const outcomes: boolean[] = [];
  for (let i = 0; i < 3; i++) void reach.comesBack(HOP).then((isThere) => outcomes.push(isThere));
  await clock.advance(3649);
  expect(outcomes).toEqual([]);
  await clock.advance(1);
  expect(outcomes).toEqual([false, false, false]);
  expect(probed).toEqual([HOP.url]);
});

describe("time in which the process did not run does not count", () => {
  /** Each timer comes `lateMs` late. */
  function whenLate(lateMs: (timer: number) => number) {
    const clock = createFakeClock();
    let timers = 0;
    let firedMs: number | undefined;
    const late = {
      monotonic: () => clock.monotonic(),
      timer: (ms: number, run: () => void) => clock.timer(ms + lateMs(timers++), run),
    };
    patientTimer(late, 350, () => (firedMs = clock.monotonic()));
    return { clock, firedMs: () => firedMs };
  }

  test.each([
    ["not at all", () => 0, 350],
    ["a little, all the time", () => 80, 350 + 7 * 80],
    ["for long, once", (timer: number) => (timer === 5 ? 2000 : 0), 6 * 50 + 2000 + 350],
  ] as const)("%s", async (_, lateMs, expectedMs) => {
    const { clock, firedMs } = whenLate(lateMs);
    await clock.advance(10_000);
    expect(firedMs()).toBe(expectedMs);
    expect(clock.armed).toBe(0);
  });
});

describe("a choice among endpoints", () => {
  const endpoint = (name: string, { url }: NextHop) =>
    create(NetworkServiceEndpointSchema, { name, url, networkServiceNames: ["service"] });

  function choose(endpoints: readonly ReturnType<typeof endpoint>[], hasOthers = false) {
    const bed = build();
    const recorder = createRecorder<CallContext & WithNextHop>();
    const asked: string[] = [];
    recorder.answer = ({ connection }, ctx) => {
      asked.push(connection.networkServiceEndpointName);
      if (!bed.silent.has(ctx.nextHop.url)) return Promise.resolve(connection);
      return new Promise((_, reject) =>
        ctx.signal.addEventListener("abort", () => reject(new Error("aborted")), { once: true }),
      );
    };
    const service = selectEndpoint({
      view: {
        service: (name) => Promise.resolve(create(NetworkServiceSchema, { name, payload: "IP" })),
        endpointsOf: () => Promise.resolve(endpoints),
        endpoint: (name) => Promise.resolve(endpoints.find((each) => each.name === name)),
      },
      hasOthers,
      clock: bed.clock,
      log: silentLogger,
      isChosen: () => false,
      isManager: () => true,
      isProxy: () => false,
      holdsWire: () => false,
      refusedAddresses: [],
      reach: bed.reach,
    })(recorder);
    return {
      ...bed,
      recorder,
      asked,
      request: (named = "") => {
        const request = requestOn(["manager", "forwarder"]);
        if (request.connection !== undefined) request.connection.networkServiceEndpointName = named;
        return service.request(request, MANAGER);
      },
    };
  }

  test("costs half a second for a lost node, however many endpoints are on it", async () => {
    const { request, asked, clock } = choose([
      endpoint("a", HOP),
      endpoint("b", HOP),
      endpoint("c", HOP),
      endpoint("d", OTHER),
    ]);
    const answering = request();
    await clock.advance(500);
    expect((await answering).networkServiceEndpointName).toBe("d");
    expect(asked).toEqual(["a", "d"]);
    // … and nothing for the next one.
    expect((await request()).networkServiceEndpointName).toBe("d");
  });

  test("that was made elsewhere is given up when the node is lost, if others may be chosen there", async () => {
    const [given, kept] = [choose([endpoint("a", HOP)], true), choose([endpoint("a", HOP)])];
    const outcomes: unknown[] = [];
    for (const { request } of [given, kept])
      void request("a").catch((error: unknown) => outcomes.push(error));
    await Promise.all([given, kept].map(({ clock }) => clock.advance(5000)));
    expect(outcomes).toMatchObject([{ code: "UNAVAILABLE", reason: "hop-lost" }]);
  });

  test("fails after four seconds when all nodes are lost, and each was asked", async () => {
    const { request, silent, clock } = choose([endpoint("a", HOP), endpoint("b", OTHER)]);
    silent.add(OTHER.url);
    const asking = request();
    const [outcome] = await Promise.all([Promise.allSettled([asking]), clock.advance(4200)]);
    expect(outcome).toMatchObject([{ reason: { code: "UNAVAILABLE", reason: "hop-lost" } }]);
  });

  test("takes who answers late when nobody else is there", async () => {
    const { request, silent, clock, answer } = choose([endpoint("a", HOP), endpoint("b", HOP)]);
    const answering = request();
    await clock.advance(2000);
    silent.delete(HOP.url);
    answer(HOP.url);
    expect((await answering).networkServiceEndpointName).toBe("b");
  });

  test("and gives it its time, which begins when it has answered", async () => {
    const { request, silent, clock, answer, recorder } = choose(
      ["a", "b", "c"].map((name) => endpoint(name, HOP)),
    );
    const answering = request();
    await clock.advance(2000);
    silent.delete(HOP.url);
    const done = Promise.withResolvers<void>();
    recorder.answer = async ({ connection }, ctx) => {
      ctx.signal.addEventListener("abort", () => done.reject(ctx.signal.reason), { once: true });
      await done.promise;
      return connection;
    };
    answer(HOP.url);
    await clock.advance(3000);
    done.resolve();
    expect((await answering).networkServiceEndpointName).toBe("b");
  });
});
