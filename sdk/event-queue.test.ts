import { expect, test } from "vitest";
import { createEventQueue } from "./event-queue.ts";
import { meters } from "./metrics/meters.ts";

async function gauges(): Promise<readonly number[]> {
  const read = async ({ readers }: typeof meters.queuedEvents) => {
    const [reader] = readers;
    const [sample] = [...((await reader?.()) ?? [])];
    return sample?.value ?? -1;
  };
  return [await read(meters.queuedEvents), await read(meters.longestQueue)];
}

test("what is queued is read in order, then the end or its error", async () => {
  const queue = createEventQueue<number>(3, new AbortController().signal);
  for (const item of [1, 2, 3, 4]) queue.push(item);
  const read: number[] = [];
  await expect(async () => {
    for await (const item of queue) read.push(item);
  }).rejects.toMatchObject({ reason: "slow-reader" });
  expect(read).toEqual([1, 2, 3]);
});

test("the gauges say how many events wait, of all queues and of the longest", async () => {
  const stop = new AbortController();
  using first = createEventQueue<number>(10, stop.signal);
  const second = createEventQueue<number>(10, stop.signal);
  for (const item of [1, 2, 3]) first.push(item);
  second.push(1);
  expect(await gauges()).toEqual([4, 3]);
  const reader = first[Symbol.asyncIterator]();
  await reader.next();
  await reader.next();
  expect(await gauges()).toEqual([2, 1]);
  second[Symbol.dispose]();
  second.push(2);
  expect(await gauges()).toEqual([1, 1]);
  await reader.return?.();
  expect(await gauges()).toEqual([0, 0]);
});

test("a queue that nobody reads any more, or ever read, does not count", async () => {
  const stop = new AbortController();
  const queue = createEventQueue<number>(10, stop.signal);
  queue.push(1);
  stop.abort();
  for await (const item of queue) expect.unreachable(String(item));
  expect(await gauges()).toEqual([0, 0]);
});
