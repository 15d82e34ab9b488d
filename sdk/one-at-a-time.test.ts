import { expect, test } from "vitest";
import { fewAtATime, oneAtATime, oneAtATimeByKey } from "./one-at-a-time.ts";

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

test("so many at once, and the next when one has ended, well or badly, in the order in which they came", async () => {
  const fewOf = fewAtATime(2);
  const log: string[] = [];
  const gates = ["a", "b", "c", "d"].map((name) => ({ name, ...Promise.withResolvers<void>() }));
  const [a, b, c, d] = gates.map(({ name, promise }) =>
    fewOf(async () => {
      log.push(name);
      await promise;
      return name;
    }),
  );
  await Promise.resolve();
  expect(log).toEqual(["a", "b"]);
  gates[1]?.reject(new Error("no"));
  await expect(b).rejects.toThrow("no");
  expect(log).toEqual(["a", "b", "c"]);
  for (const { resolve } of gates) resolve();
  expect(await Promise.all([a, c, d])).toEqual(["a", "c", "d"]);
  expect(log).toEqual(["a", "b", "c", "d"]);
  expect(await fewOf(() => Promise.resolve("e"))).toBe("e");
});
