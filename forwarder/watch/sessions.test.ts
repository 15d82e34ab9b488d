import { expect, test } from "vitest";
import { silentLogger as log } from "../../sdk/log.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import type { SeenPeer } from "../plan/session.ts";
import { watchSessions } from "./sessions.ts";

/** Tunnels that are looked at; a test says how their peers are. */
function build() {
  const clock = createFakeClock();
  const startMs = clock.now();
  const peers = new Map<string, SeenPeer>();
  const done: string[] = [];
  let fails = false;
  const watch = watchSessions({
    look(wireId) {
      done.push(`look ${wireId}`);
      return fails ? Promise.reject(new Error("no answer")) : Promise.resolve(peers.get(wireId));
    },
    restart(wireId, towards) {
      done.push(`restart ${wireId} ${towards}`);
      return Promise.resolve();
    },
    turn: (_, work) => work(),
    clock,
    log,
  });
  return {
    clock,
    watch,
    live: (wireId: string, rxBytes = 0) => peers.set(wireId, { handshakeMs: clock.now(), rxBytes }),
    lose: (wireId: string) => peers.set(wireId, { handshakeMs: undefined, rxBytes: 0 }),
    end: (wireId: string) => peers.delete(wireId),
    setFails: (value: boolean) => (fails = value),
    /** What was done since the last question. */
    since: () => done.splice(0),
    elapsedMs: () => clock.now() - startMs,
  };
}

test("tunnels that live are looked at once in minutes, and left alone", async () => {
  const { clock, watch, live, since } = build();
  watch.add("a", "client", false);
  for (let i = 0; i < 60; i++) {
    live("a"); // renewed in time
    await clock.advance(60_000);
  }
  const did = since();
  expect(did.filter((what) => what.startsWith("restart"))).toEqual([]);
  expect(did.length).toBeGreaterThan(15);
  expect(did.length).toBeLessThan(40);
  watch[Symbol.dispose]();
  expect(clock.armed).toBe(0);
});

test("a tunnel whose session has ended begins handshakes once a second, until it has one again", async () => {
  const { clock, watch, live, lose, since } = build();
  live("a");
  watch.add("a", "endpoint", false);
  await clock.advance(60_000);
  since();
  await clock.advance(122_000);
  expect(since()).toEqual(["look a", "restart a learned", "look a", "restart a learned"]);
  lose("a");
  await clock.advance(10_000);
  expect(since().filter((what) => what.startsWith("restart"))).toHaveLength(10);
  live("a");
  await clock.advance(1000);
  expect(since()).toEqual(["look a"]);
  await clock.advance(60_000);
  expect(since()).toEqual([]);
  watch[Symbol.dispose]();
});

test("a tunnel that is dropped, or gone, is not looked at any more", async () => {
  const { clock, watch, live, lose, end, since } = build();
  for (const id of ["a", "b"]) lose(id);
  live("c");
  for (const id of ["a", "b", "c"]) watch.add(id, "client", true);
  await clock.advance(1000);
  expect(since()).toContain("restart b learned");
  watch.drop("a");
  end("b");
  await clock.advance(5000);
  expect(since()).toEqual(["look b"]);
  expect(clock.armed).toBe(1);
  watch[Symbol.dispose]();
});

test("a tunnel that is known already goes on as it was", async () => {
  const { clock, watch, live, since } = build();
  live("a");
  watch.add("a", "client", false);
  await clock.advance(1000);
  since();
  watch.add("a", "client", false);
  await clock.advance(60_000);
  expect(since()).toEqual([]);
  watch[Symbol.dispose]();
});

test("a look that fails is repeated", async () => {
  const { clock, watch, lose, setFails, since } = build();
  lose("a");
  setFails(true);
  watch.add("a", "client", false);
  await clock.advance(1000);
  expect(since()).toEqual(["look a"]);
  setFails(false);
  await clock.advance(5000);
  expect(since()).toEqual(["look a", "restart a learned"]);
  watch[Symbol.dispose]();
});

test("a thousand tunnels without a session share what a node has for them", async () => {
  const { clock, watch, lose, since } = build();
  for (let i = 0; i < 1000; i++) {
    lose(`${i}`);
    watch.add(`${i}`, "client", true);
  }
  await clock.advance(10_000);
  since();
  await clock.advance(10_000);
  const restarts = since().filter((what) => what.startsWith("restart"));
  expect(restarts.length).toBeGreaterThan(3000);
  expect(restarts.length).toBeLessThanOrEqual(4100);
  watch[Symbol.dispose]();
});
