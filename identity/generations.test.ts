import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { leadMsOf, leastCaLifetimeMs, planOf, signingOf } from "./generations.ts";
import type { Generation, Timing } from "./generations.ts";

const timing: Timing = { caLifetimeMs: 100_000, svidLifetimeMs: 10_000, refreshHintMs: 5000 };

const made = (madeMs: number, signsFromMs: number, more: Partial<Generation> = {}): Generation => ({
  madeMs,
  signsFromMs,
  notAfterMs: madeMs + timing.caLifetimeMs,
  longestLifeMs: timing.svidLifetimeMs,
  ...more,
});

test("the first keys sign at once", () => {
  expect(planOf([], 7, timing)).toEqual({ keep: [], nextSignsFromMs: 7, againMs: 7 });
});

describe("the next keys", () => {
  test("are made four hints before they sign, and sign a life of a certificate before the end", () => {
    const first = made(0, 0);
    expect(planOf([first], 69_999, timing)).toEqual({
      keep: [first],
      nextSignsFromMs: undefined,
      againMs: 70_000,
    });
    expect(planOf([first], 70_000, timing)).toMatchObject({ nextSignsFromMs: 90_000 });
  });

  test("are not made twice, and the plan is made again when they sign", () => {
    const [first, next] = [made(0, 0), made(70_000, 90_000)];
    expect(planOf([next, first], 70_001, timing)).toEqual({
      keep: [first, next],
      nextSignsFromMs: undefined,
      againMs: 90_000,
    });
  });

  test("of an authority that was away sign as soon as all workloads know them, or at once when all is over", () => {
    expect(planOf([made(0, 0)], 95_000, timing).nextSignsFromMs).toBe(96_000);
    expect(planOf([made(0, 0)], 200_000, timing).nextSignsFromMs).toBe(200_000);
  });

  test("come earlier when lives are shorter than they were", () => {
    expect(planOf([made(0, 0)], 20_000, { ...timing, caLifetimeMs: 50_000 }).nextSignsFromMs).toBe(40_000);
  });
});

describe("old keys", () => {
  const [old, signing] = [made(0, 0), made(70_000, 90_000)];
  test("stay as long as anything is valid that they signed", () => {
    expect(planOf([old, signing], 101_999, timing).keep).toEqual([old, signing]);
    expect(planOf([old, signing], 102_000, timing).keep).toEqual([signing]);
  });

  test("stay longer when certificates lived longer once, and never longer than their own", () => {
    const slow = { ...old, longestLifeMs: 20_000 };
    expect(planOf([{ ...slow, notAfterMs: 105_000 }, signing], 106_999, timing).keep).toHaveLength(2);
    expect(planOf([{ ...slow, notAfterMs: 105_000 }, signing], 107_000, timing).keep).toEqual([signing]);
    expect(planOf([{ ...slow, notAfterMs: 1e9 }, signing], 111_999, timing).keep).toHaveLength(2);
  });
});

test("whatever the times: somebody signs, knows to be known, and nothing valid is signed by removed keys", () => {
  const times = fc.record({
    svidLifetimeMs: fc.integer({ min: 1000, max: 100_000 }),
    refreshHintMs: fc.integer({ min: 1000, max: 50_000 }),
    slack: fc.double({ min: 1, max: 5, noNaN: true }),
  });
  fc.assert(
    fc.property(times, fc.integer({ min: 0, max: 3000 }), ({ slack, ...lives }, lateMs) => {
      const least = leastCaLifetimeMs({ ...lives, caLifetimeMs: 0 });
      const now: Timing = { ...lives, caLifetimeMs: Math.ceil(least * slack) };
      let [nowMs, generations]: [number, readonly Generation[]] = [0, []];
      const validUntil = new Map<Generation, number>();
      for (let step = 0; step < 40; step++) {
        const { keep, nextSignsFromMs } = planOf(generations, nowMs, now);
        for (const gone of generations.filter((each) => !keep.includes(each)))
          expect(validUntil.get(gone) ?? 0).toBeLessThanOrEqual(nowMs);
        const next = {
          madeMs: nowMs,
          notAfterMs: nowMs + now.caLifetimeMs,
          longestLifeMs: now.svidLifetimeMs,
        };
        generations =
          nextSignsFromMs === undefined ? keep : [...keep, { ...next, signsFromMs: nextSignsFromMs }];
        const signing = signingOf(generations, nowMs);
        if (signing === undefined) throw new Error("nobody signs");
        expect(signing.notAfterMs).toBeGreaterThan(nowMs);
        const knownMs = signing.madeMs > 0 ? nowMs - signing.madeMs : Infinity;
        expect(knownMs).toBeGreaterThanOrEqual(leadMsOf(now) - 3000);
        validUntil.set(signing, Math.min(signing.notAfterMs, nowMs + now.svidLifetimeMs));
        expect(generations.length).toBeLessThanOrEqual(4);
        nowMs = Math.max(nowMs + 1, planOf(generations, nowMs, now).againMs + lateMs);
      }
    }),
  );
});
