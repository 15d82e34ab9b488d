import { afterEach, beforeEach, expect, test } from "vitest";
import { NsmError } from "../errors.ts";
import { meters } from "./meters.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { measureWire } from "./wire-measure.ts";
import type { RequestKind } from "./wire-measure.ts";

let values: unknown[] = [];
let connected = new DisposableStack();
beforeEach(() => {
  values = [];
  connected = new DisposableStack();
  for (const meter of [meters.setup, meters.refresh, meters.refreshLag, meters.heals, meters.healGap]) {
    const note = (labels: object, value: number) =>
      void values.push([meter.name, ...Object.values(labels), value]);
    connected.use(meter.connect({ add: note, observe: note }));
  }
});
afterEach(() => connected.dispose());

function build() {
  const clock = createFakeClock();
  const measure = measureWire(clock);
  const ok = (ms: number, kind: RequestKind) => measure.request(kind, () => clock.advance(ms));
  const fail = async (ms: number, kind: RequestKind) => {
    const failing = measure.request(kind, async () => {
      await clock.advance(ms);
      throw new NsmError("UNAVAILABLE", "no-forwarder", "none");
    });
    await expect(failing).rejects.toThrow("none");
  };
  return { clock, measure, ok, fail };
}

test("set-up counts from the first try until the wire is up, with the pauses between", async () => {
  const { clock, ok, fail } = build();
  await fail(100, "first");
  await clock.advance(400);
  await ok(500, "first");
  expect(values).toEqual([
    ["nsm_wire_setup_seconds", "UNAVAILABLE", 0.1],
    ["nsm_wire_setup_seconds", "OK", 1],
  ]);
});

test("refreshes count by themselves, and how late they begin", async () => {
  const { clock, measure, ok, fail } = build();
  await ok(10, "first");
  await clock.advance(60_000);
  measure.refreshDue(250);
  await ok(20, "refresh");
  measure.refreshDue(-1);
  await fail(30, "refresh");
  expect(values.slice(1)).toEqual([
    ["nsm_wire_refresh_lag_seconds", 0.25],
    ["nsm_wire_refresh_seconds", "OK", 0.02],
    ["nsm_wire_refresh_lag_seconds", 0],
    ["nsm_wire_refresh_seconds", "UNAVAILABLE", 0.03],
  ]);
});

test("a heal counts once, from the first news of it until there is a new wire, and is no set-up", async () => {
  const { clock, measure, ok, fail } = build();
  await ok(10, "first");
  measure.healed();
  measure.broken("down");
  await clock.advance(100);
  await fail(50, "heal");
  measure.broken("lease");
  await ok(350, "heal");
  measure.healed();
  measure.healed();
  expect(values.slice(1)).toEqual([
    ["nsm_wire_setup_seconds", "UNAVAILABLE", 0.05],
    ["nsm_wire_heals_total", "down", 1],
    ["nsm_wire_heal_seconds", "down", 0.5],
  ]);
});
