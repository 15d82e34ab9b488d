import { expect, test } from "vitest";
import { silentLogger } from "../sdk/log.ts";
import type { Registries, Registry } from "../sdk/registry/registry.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { createHeartbeats, hearing } from "./heartbeats.ts";

const WEST = { url: "tcp://192.0.2.9:5002", key: "west" };

function build() {
  const clock = createFakeClock();
  const state = { answers: true, probes: 0 };
  const silent: string[] = [];
  const heartbeats = createHeartbeats({
    clock,
    log: silentLogger,
    probe(_, signal) {
      state.probes++;
      if (state.answers) return Promise.resolve();
      return new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => reject(new Error("aborted")), { once: true });
      });
    },
    onSilent: ({ url }) => void silent.push(url),
  });
  return { clock, state, silent, heartbeats };
}

test("who is followed is asked, once for all, until the last one leaves", async () => {
  const { clock, state, silent, heartbeats } = build();
  const [one, two] = [heartbeats.follow(WEST), heartbeats.follow(WEST)];
  await clock.advance(20_000);
  expect(state.probes).toBe(10);
  one[Symbol.dispose]();
  one[Symbol.dispose]();
  await clock.advance(2000);
  expect(state.probes).toBe(11);
  two[Symbol.dispose]();
  expect(clock.armed).toBe(0);
  expect(silent).toEqual([]);
});

test("who does not answer for a second and a half is silent, which is said once for each question", async () => {
  const { clock, state, silent, heartbeats } = build();
  using beat = heartbeats.follow(WEST);
  void beat;
  await clock.advance(2000);
  state.answers = false;
  await clock.advance(2000);
  expect(silent).toEqual([]);
  await clock.advance(1500);
  expect(silent).toEqual([WEST.url]);
  await clock.advance(60_000);
  expect(silent).toEqual([WEST.url]);
});

test("a watch follows, a list does not", async () => {
  const { clock, state, heartbeats } = build();
  const stop = new AbortController();
  const registry: Registry<never> = {
    register: () => Promise.reject(new Error("unused")),
    unregister: () => Promise.reject(new Error("unused")),
    async *find({ watch }, { signal }) {
      if (watch)
        await new Promise<void>((resolve) =>
          signal.addEventListener("abort", () => resolve(), { once: true }),
        );
      yield* [];
    },
  };
  const registries: Registries = hearing({ services: registry, endpoints: registry }, WEST, heartbeats);
  const find = async (watch: boolean) => {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- nobody looks at the query
    const query = { entry: {} as never, watch };
    for await (const found of registries.endpoints.find(query, { signal: stop.signal })) void found;
  };
  await find(false);
  expect(clock.armed).toBe(0);
  const watching = find(true);
  await clock.advance(4000);
  expect(state.probes).toBe(2);
  stop.abort();
  await watching;
  expect(clock.armed).toBe(0);
});
