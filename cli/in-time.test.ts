import { expect, test } from "vitest";
import { inTime } from "./in-time.ts";

const never = (signal: AbortSignal) =>
  new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => reject(new Error("cancelled")), { once: true });
  });

async function* answers(count: number, signal: AbortSignal) {
  for (let i = 0; i < count; i++) yield i;
  await never(signal);
}

const options = { url: "tcp://192.0.2.1:5001", timeoutMs: 20, signal: new AbortController().signal };

async function read(until: "first" | "end", count: number, signal = options.signal) {
  const heard: number[] = [];
  const stream = inTime({ ...options, until, signal }, (within) => answers(count, within));
  const error: unknown = await (async () => {
    for await (const item of stream) heard.push(item);
  })().catch((thrown: unknown) => thrown);
  return { heard, error };
}

test.for([
  ["first", 0],
  ["end", 0],
  ["end", 2],
] as const)(
  "a peer that hangs before the %s, after %i answers, is named with the variable",
  async ([until, count]) => {
    const { heard, error } = await read(until, count);
    expect(heard).toHaveLength(count);
    expect(error).toMatchObject({
      code: "DEADLINE_EXCEEDED",
      message: expect.stringMatching(/192\.0\.2\.1.*0\.02 s.*NSM_REQUEST_TIMEOUT/),
    });
  },
);

test("a watch that has answered once may be silent", async () => {
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 100);
  const { heard, error } = await read("first", 1, stop.signal);
  expect(heard).toEqual([0]);
  expect(error).toEqual(new Error("cancelled")); // by us
});
