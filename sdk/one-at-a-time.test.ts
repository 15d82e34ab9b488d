import { expect, test } from "vitest";
import { oneAtATime } from "./one-at-a-time.ts";

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
