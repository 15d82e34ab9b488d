import { expect, test } from "vitest";
import { oneAtATime, oneAtATimeByKey } from "./one-at-a-time.ts";

test("work is done in order, also after a failure, which is the business of whoever asked for it", async () => {
  const inTurn = oneAtATime();
  const log: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = inTurn(async () => {
    await gate.promise;
    log.push("first");
    throw new Error("no");
  });
  const second = inTurn(async () => {
    log.push("second");
    return 2;
  });
  gate.resolve();
  await expect(first).rejects.toThrow("no");
  expect(await second).toBe(2);
  expect(log).toEqual(["first", "second"]);
});

test("work of one key is done in order, also after a failure; keys do not wait for each other", async () => {
  const turn = oneAtATimeByKey();
  const log: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = turn("a", async () => {
    await gate.promise;
    log.push("a1");
    throw new Error("no");
  });
  const second = turn("a", async () => log.push("a2"));
  await turn("b", async () => log.push("b"));
  gate.resolve();
  await expect(first).rejects.toThrow("no");
  await second;
  expect(log).toEqual(["b", "a1", "a2"]);
});
