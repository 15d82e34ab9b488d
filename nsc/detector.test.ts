import { describe, expect, test } from "vitest";
import { confirmations, createDetector } from "./detector.ts";

/** A path that answers after `delayMs` what `answers` says; the time and the fate of each probe are the caller's. */
function build(timeoutMs = 1000) {
  const detector = createDetector(timeoutMs);
  const probe = (atMs: number, answeredAfterMs?: number) => {
    const sequence = detector.sent(atMs);
    if (answeredAfterMs !== undefined) detector.answered(sequence, atMs + answeredAfterMs);
    return sequence;
  };
  return { detector, probe };
}

describe("a path that never answered", () => {
  test("is never dead", () => {
    const { detector, probe } = build();
    for (let atMs = 0; atMs < 10_000; atMs += 50) {
      probe(atMs);
      expect(detector.judge(atMs)).toEqual({ kind: "alive" });
    }
    expect(detector.isArmed).toBe(false);
  });
});

describe("a path that has answered", () => {
  const doubt = () => {
    const built = build();
    built.probe(0, 1);
    for (const atMs of [50, 100, 150]) built.probe(atMs);
    return built;
  };

  test("is doubted when the third probe in a row has had its time, and dead when nothing confirms it", () => {
    const { detector, probe } = doubt();
    expect(detector.judge(150)).toEqual({ kind: "alive", againAtMs: 175 });
    expect(detector.judge(175)).toEqual({ kind: "doubted", probes: 6 });
    for (let i = 0; i < 6; i++) probe(175 + 4 * i);
    expect(detector.judge(199)).toEqual({ kind: "alive", againAtMs: 220 });
    expect(detector.judge(220)).toEqual({ kind: "dead" });
  });

  test("is dead after 225 ms at most", () => {
    const { detector, probe } = build();
    const diedAtMs = 0;
    probe(diedAtMs, 0);
    for (const atMs of [50, 100, 150]) probe(atMs);
    expect(detector.judge(175).kind).toBe("doubted");
    for (let i = 0; i < 6; i++) probe(175 + 4 * i);
    expect(detector.judge(diedAtMs + 225)).toEqual({ kind: "dead" });
  });

  test.each([1, 2, 3, 6])("answers to one of the probes end the doubt (%i)", (nth) => {
    const { detector, probe } = doubt();
    detector.judge(175);
    for (let i = 1; i <= nth; i++) probe(175 + 4 * i, i === nth ? 1 : undefined);
    expect(detector.isDoubted).toBe(false);
    expect(detector.judge(300)).toEqual({ kind: "alive" });
  });

  test("an answer that is late is one", () => {
    const { detector, probe } = build();
    probe(0, 1);
    const late = probe(50);
    for (const atMs of [100, 150]) probe(atMs);
    expect(detector.judge(175).kind).toBe("doubted");
    detector.answered(late, 180);
    expect(detector.isDoubted).toBe(false);
    detector.answered(late, 181);
  });

  test("slow answers are waited for, up to the limit", () => {
    const { detector, probe } = build(300);
    for (let atMs = 0; atMs < 1000; atMs += 50) probe(atMs, 120);
    for (const atMs of [1000, 1050, 1100]) probe(atMs);
    expect(detector.judge(1200)).toEqual({ kind: "alive", againAtMs: 1100 + 252.5 });
    const slower = build(300);
    for (let atMs = 0; atMs < 1000; atMs += 50) slower.probe(atMs, 290);
    for (const atMs of [1000, 1050, 1100]) slower.probe(atMs);
    expect(slower.detector.judge(1200)).toEqual({ kind: "alive", againAtMs: 1400 });
  });

  test("who did not run forgives", () => {
    const { detector } = doubt();
    detector.forgive();
    expect(detector.judge(10_000)).toEqual({ kind: "alive" });
  });

  test("sequence numbers begin anew after 65536", () => {
    const { detector, probe } = build();
    for (let i = 0; i < 70_000; i++) expect(probe(i * 50, 1)).toBe(i % 65_536);
    expect(detector.isArmed).toBe(true);
  });
});

test.each([
  [0, 6],
  [0.05, 6],
  [0.1, 6],
  [0.36, 15],
  [0.9, 24],
])("a loss of %f is confirmed by %i probes", (share, probes) => {
  const loss = Array.from({ length: 100 }, (_, i) => i < share * 100);
  expect(confirmations(loss)).toBe(probes);
});

/** xorshift32: the same losses in each run. */
function randomNumbers(seed: number): () => number {
  let x = seed;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}

test.each([
  ["5", 0.95],
  ["20", 0.8],
])("an hour with a loss of %s %% each way is no death", (_, passes) => {
  const random = randomNumbers(42);
  const { detector } = build();
  let doubts = 0;
  const probe = (atMs: number) => {
    const sequence = detector.sent(atMs);
    if (random() < passes && random() < passes) detector.answered(sequence, atMs + 1);
  };
  for (let atMs = 0; atMs < 3_600_000; atMs += 50) {
    probe(atMs);
    const verdict = detector.judge(atMs + 27);
    expect(verdict.kind).not.toBe("dead");
    if (verdict.kind !== "doubted") continue;
    doubts++;
    for (let i = 1; i <= verdict.probes && detector.isDoubted; i++) probe(atMs + 27 + i);
    expect(detector.isDoubted).toBe(false);
  }
  expect(doubts).toBeGreaterThan(10);
});
