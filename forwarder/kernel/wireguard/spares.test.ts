import { expect, test } from "vitest";
import { createFakeClock } from "../../../test/support/fake-clock.ts";
import type { Program } from "./program.ts";
import { createSpares } from "./spares.ts";

interface Bed {
  readonly running: Set<string>;
  readonly ended: Set<string>;
  /** How many of the next starts fail. */
  failures: number;
  /** What a start waits for. */
  slow: Promise<void>;
}

function bedOf(count: number) {
  const clock = createFakeClock();
  const bed: Bed = { running: new Set(), ended: new Set(), failures: 0, slow: Promise.resolve() };
  let started = 0;
  const start = async (): Promise<Program> => {
    const tun = `p${++started}`;
    await bed.slow;
    if (bed.failures-- > 0) throw new Error("no memory");
    bed.running.add(tun);
    return { tun, pid: started, hasEnded: () => bed.ended.has(tun) };
  };
  const stop = ({ tun }: Program) => Promise.resolve(void bed.running.delete(tun));
  const spares = createSpares({ count, start, park: (program) => Promise.resolve(program), stop, clock });
  return {
    bed,
    spares,
    settle: (ms: number) => clock.advance(ms),
    take: async () => (await spares.take()).tun,
    started: () => started,
  };
}

test("a node without WireGuard wires has no process", async () => {
  const { bed, settle } = bedOf(2);
  await settle(60_000);
  expect([...bed.running]).toEqual([]);
});

test("while there are wires, what is taken is replaced, a moment later", async () => {
  const { bed, spares, settle, take } = bedOf(2);
  spares.use("w1");
  expect(await take()).toBe("p1");
  expect([...bed.running]).toEqual(["p1"]);
  await settle(50);
  expect([...bed.running]).toEqual(["p1", "p2", "p3"]);
  expect([await take(), await take()]).toEqual(["p2", "p3"]);
  await settle(50);
  expect(bed.running.size).toBe(5);
  await settle(60_000);
  expect(bed.running.size).toBe(5);
});

test("the last wire leaves nothing behind after a while, and a next one before that finds a program", async () => {
  const { bed, spares, settle, take } = bedOf(1);
  spares.use("w1");
  await settle(50);
  spares.leave("w1");
  await settle(200);
  spares.use("w2");
  await settle(200);
  expect(await take()).toBe("p1");
  bed.running.delete("p1");
  await settle(50);
  spares.leave("w2");
  await settle(2000);
  expect([...bed.running]).toEqual([]);
});

test("one that ended meanwhile is passed over, and one that is being started is waited for", async () => {
  const { bed, spares, settle, take, started } = bedOf(1);
  spares.use("w1");
  await settle(50);
  bed.ended.add("p1");
  expect(await take()).toBe("p2");
  let go = () => {};
  bed.slow = new Promise((resolve) => (go = resolve));
  await settle(50);
  const waits = take();
  go();
  expect(await waits).toBe("p3");
  expect(started()).toBe(3);
});

test("a start that fails is the caller's to hear of only when nothing else helps, and is not repeated by itself", async () => {
  const { bed, spares, settle, take, started } = bedOf(1);
  bed.failures = 1;
  spares.use("w1");
  await settle(50);
  await settle(60_000);
  expect(started()).toBe(1);
  expect(await take()).toBe("p2");
  bed.failures = 9;
  await expect(take()).rejects.toThrow("no memory");
});

test("when it is closed nothing runs but what was taken, also what was being started", async () => {
  const { bed, spares, settle, take } = bedOf(2);
  spares.use("w1");
  expect(await take()).toBe("p1");
  await settle(50);
  await take();
  let go = () => {};
  bed.slow = new Promise((resolve) => (go = resolve));
  await settle(50);
  const closed = spares[Symbol.asyncDispose]();
  go();
  await closed;
  expect([...bed.running]).toEqual(["p1", "p2"]);
  spares.use("w2");
  await settle(60_000);
  expect(bed.running.size).toBe(2);
});
