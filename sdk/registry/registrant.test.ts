import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { NetworkServiceEndpointSchema } from "../../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import { silentLogger as log } from "../log.ts";
import { keepRegistered } from "./registrant.ts";
import type { RegistrantOptions } from "./registrant.ts";
import type { Found, Registry } from "./registry.ts";

const LIFE_MS = 60_000;
/** Of the first pause, 100 ms plus 20 %. */
const SOON_MS = 121;

beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date", "performance"] }));
afterEach(() => void vi.useRealTimers());

const clock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  timer(delayMs, run) {
    const handle = setTimeout(run, delayMs);
    return { [Symbol.dispose]: () => clearTimeout(handle) };
  },
};
const away = () => new NsmError("UNAVAILABLE", "unreachable", "the registry is away");

const nobody: (news: "deleted" | "ended") => void = () => undefined;

/** A registry that counts calls by their time; `watch` tells of a record that was taken out, or ends it. */
function build(options: Partial<RegistrantOptions<NetworkServiceEndpoint>> = {}) {
  const [registers, unregisters]: number[][] = [[], []];
  const state = { isAway: false, watchEnds: false, shows: false, tell: nobody };
  const check = () => {
    if (state.isAway) throw away();
  };
  const registry: Registry<NetworkServiceEndpoint> = {
    register(entry) {
      registers?.push(performance.now());
      return Promise.resolve().then(() => {
        check();
        return { ...entry, expirationTime: timestampFromMs(Date.now() + LIFE_MS) };
      });
    },
    async *find({ entry }, { signal }): AsyncGenerator<Found<NetworkServiceEndpoint>> {
      check();
      if (state.shows) yield { entry, deleted: false };
      if (state.watchEnds) return;
      const told = await new Promise<"deleted" | "ended" | "aborted">((resolve) => {
        state.tell = resolve;
        signal.addEventListener("abort", () => resolve("aborted"), { once: true });
      });
      if (told === "deleted") yield { entry, deleted: true };
      if (told === "ended") throw away();
    },
    unregister() {
      unregisters?.push(performance.now());
      return Promise.resolve().then(check);
    },
  };
  const entry = () => create(NetworkServiceEndpointSchema, { name: "nse" });
  const registrant = keepRegistered({
    registry,
    entry,
    query: entry(),
    what: "endpoint nse",
    unregister: true,
    clock,
    log,
    ...options,
  });
  return { registrant, state, registers: registers ?? [], unregisters: unregisters ?? [] };
}

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

test("is tried again with growing pauses, five seconds at most, until it succeeds", async () => {
  const { registrant, state, registers } = build();
  state.isAway = true;
  let isRegistered = false;
  void registrant.registered.then(() => (isRegistered = true));
  await pass(60_000);
  const pauses = registers.slice(1).map((atMs, i) => atMs - (registers[i] ?? 0));
  for (const [i, pause] of pauses.entries()) {
    const meant = Math.min(100 * 2 ** i, 5000);
    expect(pause).toBeGreaterThanOrEqual(0.8 * meant - 1);
    expect(pause).toBeLessThanOrEqual(1.2 * meant + 1);
  }
  expect(pauses.length).toBeGreaterThan(12);
  expect(isRegistered).toBe(false);
  state.isAway = false;
  await pass(6001);
  expect(isRegistered).toBe(true);
  await registrant[Symbol.asyncDispose]();
});

test("is renewed after two thirds of its life", async () => {
  const { registrant, registers } = build();
  await pass((LIFE_MS * 2) / 3 - 1);
  expect(registers).toHaveLength(1);
  await pass(SOON_MS);
  expect(registers).toHaveLength(2);
  await registrant[Symbol.asyncDispose]();
});

test.for(["deleted", "ended"] as const)("is registered again soon after its watch says %s", async (news) => {
  const { registrant, state, registers } = build();
  await pass(10_000);
  expect(registers).toHaveLength(1);
  state.tell(news);
  await pass(SOON_MS);
  expect(registers).toHaveLength(2);
  await registrant[Symbol.asyncDispose]();
});

test("a registry that takes the record and lets nobody watch it is not stormed", async () => {
  const { registrant, state, registers } = build();
  state.watchEnds = true;
  await pass(60_000);
  expect(registers.length).toBeLessThan(25);
  // Once it lets, the next loss is mended as soon as ever.
  state.watchEnds = false;
  await pass(10_000);
  const { length } = registers;
  state.tell("ended");
  await pass(SOON_MS);
  expect(registers).toHaveLength(length + 1);
  await registrant[Symbol.asyncDispose]();
});

test("a registry that is restarted again and again has the record as soon each time", async () => {
  const { registrant, state, registers } = build();
  state.shows = true;
  await pass(SOON_MS);
  for (let i = 2; i < 10; i++) {
    await pass(300);
    state.tell("ended");
    await pass(SOON_MS);
    expect(registers).toHaveLength(i);
  }
  await registrant[Symbol.asyncDispose]();
});

test("somebody else's equal record counts where that is accepted, and is not renewed", async () => {
  const { registrant, state, registers } = build({ accept: () => Promise.resolve(true) });
  state.isAway = true;
  await registrant.registered;
  state.isAway = false;
  expect(registers).toHaveLength(1);
  await registrant[Symbol.asyncDispose]();
});

test("is unregistered once at the end, whether or not that succeeds, and leaves no timer", async () => {
  for (const isAway of [false, true]) {
    const { registrant, state, unregisters } = build();
    await registrant.registered;
    state.isAway = isAway;
    await registrant[Symbol.asyncDispose]();
    await registrant[Symbol.asyncDispose]();
    expect(unregisters).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
  }
});

test("what ends while it is tried is not registered any more", async () => {
  const { registrant, state, registers } = build({ unregister: false });
  state.isAway = true;
  await pass(1000);
  await registrant[Symbol.asyncDispose]();
  const { length } = registers;
  await pass(60_000);
  expect(registers).toHaveLength(length);
});
