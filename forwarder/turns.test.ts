import { expect, test } from "vitest";
import { createTurns } from "./turns.ts";

test("work of one key is done in order, also after a failure; keys do not wait for each other", async () => {
  const turn = createTurns();
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
