import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionSchema } from "../api/gen/connection_pb.js";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { createDataPath } from "./data-path.ts";
import type { PathNews } from "./data-path.ts";

const wire = (endpoint: string, address = "172.16.0.1/32") =>
  create(ConnectionSchema, {
    networkServiceEndpointName: endpoint,
    context: { ipContext: { srcIpAddrs: [address] } },
  });

function build() {
  const clock = createFakeClock();
  const watches: (PathNews & { hasAnswered: boolean; ended: boolean })[] = [];
  let deaths = 0;
  let trusted = 0;
  const path = createDataPath({
    clock,
    random: () => 0.5,
    watch(_, news, hasAnswered) {
      const watch = { ...news, hasAnswered, ended: false };
      watches.push(watch);
      return { [Symbol.dispose]: () => void (watch.ended = true) };
    },
    onDead: () => void deaths++,
    onTrusted: () => void trusted++,
  });
  const last = () => {
    const watch = watches.at(-1);
    if (watch === undefined) throw new Error("nothing is watched");
    return watch;
  };
  /** As a client does that is given the same endpoint again. */
  const dieAndFollow = (endpoint: string) => {
    last().onDead();
    path.follow(wire(endpoint), true);
  };
  return { clock, path, watches, last, dieAndFollow, deaths: () => deaths, trusted: () => trusted };
}

test("a new wire is trusted, and its death told", () => {
  const { path, last, deaths } = build();
  path.follow(wire("a"), true);
  expect(path.isTrusted).toBe(true);
  expect(last().hasAnswered).toBe(false);
  last().onDead();
  expect(deaths()).toBe(1);
});

test("a refresh that changes nothing that probes depend on leaves the watch as it is", () => {
  const { path, watches } = build();
  path.follow(wire("a"), true);
  path.follow(wire("a"), false);
  expect(watches).toHaveLength(1);
  path.follow(wire("a", "172.16.0.9/32"), false);
  expect(watches.map(({ ended }) => ended)).toEqual([true, false]);
});

test("a wire by an endpoint that went silent is trusted with its first answer, however often it was made anew", async () => {
  const { clock, path, last, dieAndFollow, deaths, trusted } = build();
  path.follow(wire("a"), true);
  for (const [pauseMs, death] of [
    [1000, 1],
    [2000, 2],
    [4000, 3],
  ] as const) {
    dieAndFollow("a");
    expect(path.isTrusted).toBe(false);
    last().onDead();
    expect(deaths()).toBe(death); // not within the pause
    await clock.advance(pauseMs);
    expect(last().hasAnswered).toBe(true);
  }
  expect(trusted()).toBe(0);
  last().onAnswer();
  expect([path.isTrusted, trusted()]).toEqual([true, 1]);
});

test("an answer after a real silence ends the pause: another death counts at once, and pauses begin anew", async () => {
  const { clock, path, last, dieAndFollow, deaths } = build();
  path.follow(wire("a"), true);
  dieAndFollow("a");
  await clock.advance(1000);
  dieAndFollow("a");
  await clock.advance(1500);
  last().onAnswer();
  await clock.advance(60_000);
  expect(last().hasAnswered).toBe(false); // still the watch that saw the answer
  dieAndFollow("a");
  expect(deaths()).toBe(3);
  await clock.advance(1000);
  expect(last().hasAnswered).toBe(true);
});

test("one that answers as soon as it is made anew, and then no more, is judged ever more seldom", async () => {
  const { clock, path, last, dieAndFollow } = build();
  path.follow(wire("a"), true);
  const pauses: number[] = [];
  for (let i = 0; i < 4; i++) {
    dieAndFollow("a");
    last().onAnswer();
    last().onDead();
    const fromMs = clock.monotonic();
    while (!last().hasAnswered) await clock.advance(100);
    pauses.push(clock.monotonic() - fromMs);
  }
  expect(pauses).toEqual([1000, 2000, 4000, 8000]);
});

test("one that goes on answering is judged as before soon after each time: a path that is cut again and again", async () => {
  const { clock, path, last, dieAndFollow, deaths } = build();
  path.follow(wire("a"), true);
  for (let cuts = 1; cuts <= 10; cuts++) {
    dieAndFollow("a");
    expect(deaths()).toBe(cuts);
    await clock.advance(30);
    last().onAnswer();
    await clock.advance(2000);
  }
  path[Symbol.dispose]();
  expect(clock.armed).toBe(0);
});

test("an endpoint that went silent is remembered while the wire is with another one", async () => {
  const { clock, path, last, dieAndFollow, deaths } = build();
  path.follow(wire("a"), true);
  dieAndFollow("b");
  expect(path.isTrusted).toBe(true);
  path.follow(wire("a"), true);
  expect(path.isTrusted).toBe(false);
  await clock.advance(1000);
  expect(last().hasAnswered).toBe(true);
  dieAndFollow("b");
  expect([path.isTrusted, deaths()]).toEqual([true, 2]);
});

test("what is followed no more has neither watches nor timers", () => {
  const { clock, path, watches, dieAndFollow } = build();
  path.follow(wire("a"), true);
  dieAndFollow("a");
  path[Symbol.dispose]();
  expect(watches.every(({ ended }) => ended)).toBe(true);
  expect(clock.armed).toBe(0);
});

test("without probes every wire is trusted", () => {
  const path = createDataPath({
    clock: createFakeClock(),
    random: () => 0,
    watch: undefined,
    onDead: () => undefined,
    onTrusted: () => undefined,
  });
  path.follow(wire("a"), true);
  expect(path.isTrusted).toBe(true);
});
