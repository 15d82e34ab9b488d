import { expect, test } from "vitest";
import { createTally } from "./tally.ts";

/** Probes are sent at their number's millisecond; the listed ones come back half a millisecond later. */
function play(count: number, answers: ReadonlyMap<number, string>) {
  const tally = createTally();
  const news: [number, string][] = [];
  for (let ms = 0; ms < count; ms++) {
    const sequence = tally.sent(ms);
    const from = answers.get(sequence);
    if (from !== undefined && tally.arrived(sequence, from, ms + 0.5)) news.push([sequence, from]);
  }
  return { tally, news };
}

const range = (from: number, to: number, name: string): [number, string][] =>
  Array.from({ length: to - from }, (_, i) => [from + i, name]);

test("probes that all come back are none lost and one interval apart", () => {
  const { tally, news } = play(10, new Map(range(0, 10, "a")));
  expect(tally.report()).toEqual({
    sent: 10,
    received: 10,
    lost: 0,
    gapMs: 1,
    from: { a: { received: 10, lastMs: 9.5 } },
  });
  expect(news).toEqual([[0, "a"]]);
});

test("between two reflectors the gap is from the last of one to the first of the other", () => {
  const { tally, news } = play(100, new Map([...range(0, 20, "a"), ...range(70, 100, "b")]));
  expect(tally.report()).toMatchObject({
    lost: 50,
    gapMs: 51,
    from: { a: { lastMs: 19.5 }, b: { received: 30 } },
  });
  expect(news).toEqual([
    [0, "a"],
    [70, "b"],
  ]);
});

test("probes before the first that came back are not lost, the silence at the end is", () => {
  const { tally } = play(100, new Map(range(30, 60, "a")));
  expect(tally.report()).toMatchObject({ sent: 100, received: 30, lost: 40, gapMs: 39.5 });
});

test("when nothing comes back everything is lost", () => {
  expect(play(5, new Map()).tally.report()).toEqual({ sent: 5, received: 0, lost: 5, gapMs: 0, from: {} });
});

test("a copy and a number that was never sent count for nothing", () => {
  const { tally } = play(3, new Map(range(0, 3, "a")));
  expect(tally.arrived(1, "b", 10)).toBe(false);
  expect(tally.arrived(7, "b", 10)).toBe(false);
  expect(tally.report()).toMatchObject({ received: 3, lost: 0, gapMs: 1 });
});
