import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { NetworkServiceEndpointSchema } from "../api/gen/registry_pb.js";
import { silentLogger } from "../sdk/log.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { createLocalEndpoints } from "./local-endpoints.ts";
import { createLostForwarders } from "./lost-forwarders.ts";

const GRACE_MS = 5000;

/** Two forwarders, and ten wires of the first one. */
function build() {
  const clock = createFakeClock();
  const local = createLocalEndpoints(clock);
  const asked: string[] = [];
  const lost = createLostForwarders({
    local,
    forwarderService: "forwarder",
    forwarderGraceMs: GRACE_MS,
    askAgain: (id) => void asked.push(id),
    clock,
    log: silentLogger,
  });
  const start = (name: string) =>
    local.set({
      entry: create(NetworkServiceEndpointSchema, { name, networkServiceNames: ["forwarder"] }),
      url: `unix:///${name}`,
      path: { index: 0, tokens: [] },
      isAlive: () => true,
      dispose: () => undefined,
    });
  start("a");
  start("b");
  for (let i = 0; i < 10; i++) lost.serves(`wire-${i}`, "a");
  return { clock, local, lost, asked, start, kill: (name: string) => local.delete(name) };
}

test("a forwarder that is back within the grace keeps its wires", async () => {
  const { clock, kill, start, asked, lost } = build();
  kill("a");
  await clock.advance(GRACE_MS - 1);
  expect(lost.isGivenUp("a")).toBe(false);
  start("a");
  await clock.advance(60_000);
  expect(asked).toEqual([]);
  expect(lost.isGivenUp("a")).toBe(false);
  expect(clock.armed).toBe(0);
});

test("after the grace its wires are asked for again, one after the other, and others are left alone", async () => {
  const { clock, kill, asked, lost } = build();
  lost.serves("other", "b");
  kill("a");
  await clock.advance(GRACE_MS);
  expect(lost.isGivenUp("a")).toBe(true);
  expect(asked).toHaveLength(1);
  await clock.advance(500);
  expect(asked).toEqual(Array.from({ length: 10 }, (_, i) => `wire-${i}`));
});

test("while nobody else is there nobody is asked, and as soon as somebody is all are", async () => {
  const { clock, kill, start, asked, lost } = build();
  kill("b");
  kill("a");
  await clock.advance(60_000);
  expect(asked).toEqual([]);
  expect(lost.isGivenUp("a")).toBe(false);
  start("c");
  await clock.advance(1000);
  expect(lost.isGivenUp("a")).toBe(true);
  expect(asked).toHaveLength(10);
});

test("who has gone to another forwarder, or was closed, is not asked", async () => {
  const { clock, kill, asked, lost } = build();
  kill("a");
  lost.serves("wire-0", "b");
  await clock.advance(GRACE_MS);
  lost.drop("wire-2");
  lost.serves("wire-3", "b");
  await clock.advance(1000);
  expect(asked).toEqual([1, 4, 5, 6, 7, 8, 9].map((i) => `wire-${i}`));
});

test("one that was given up and comes back is as good as any", async () => {
  const { clock, kill, start, lost } = build();
  kill("a");
  await clock.advance(GRACE_MS);
  start("a");
  expect(lost.isGivenUp("a")).toBe(false);
});

test("disposing ends what is under way", async () => {
  const { clock, kill, asked, lost } = build();
  kill("a");
  await clock.advance(GRACE_MS);
  lost[Symbol.dispose]();
  await clock.advance(60_000);
  expect(asked).toHaveLength(1);
  expect(clock.armed).toBe(0);
});
