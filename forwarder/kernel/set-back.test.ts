import { expect, test } from "vitest";
import { createSetBack } from "./set-back.ts";

function clocks() {
  const time = { wallMs: 1_000_000, monotonicMs: 0 };
  const clock = {
    now: () => time.wallMs,
    monotonic: () => time.monotonicMs,
    timer: () => ({ [Symbol.dispose]: () => undefined }),
  };
  const advance = (ms: number) => {
    time.wallMs += ms;
    time.monotonicMs += ms;
  };
  const set = (ms: number) => (time.wallMs += ms);
  return { clock, advance, set };
}

test("a clock that goes on, or is set forward, is no reason to look", () => {
  const { clock, advance, set } = clocks();
  const setBack = createSetBack(clock);
  advance(1_000_000);
  expect(setBack.isDue(0)).toBe(false);
  set(3_600_000);
  advance(1_000_000);
  expect(setBack.isDue(0)).toBe(false);
});

test.each([
  ["at once", 0],
  ["from a time that was ahead", 7_200_000],
])("a clock that is set back (%s) is one, once its sessions have ended, and once", (_, before) => {
  const { clock, advance, set } = clocks();
  const setBack = createSetBack(clock);
  set(before);
  expect(setBack.isDue(0)).toBe(false);
  set(-3_600_000);
  expect(setBack.isDue(0)).toBe(false);
  advance(190_000);
  expect(setBack.isDue(0)).toBe(false);
  advance(10_000);
  expect(setBack.isDue(0)).toBe(true);
  expect(setBack.isDue(clock.monotonic())).toBe(false);
});
