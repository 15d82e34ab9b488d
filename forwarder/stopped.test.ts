import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test, vi } from "vitest";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { createStopWatch, isStopped } from "./stopped.ts";

test("a process that was stopped is told from one that runs, and from one that ended", async () => {
  const child = spawn("sleep", ["60"]);
  await once(child, "spawn");
  const pid = child.pid ?? 0;
  expect(isStopped(pid)).toBe(false);
  child.kill("SIGSTOP");
  await vi.waitFor(() => expect(isStopped(pid)).toBe(true));
  child.kill("SIGCONT");
  await vi.waitFor(() => expect(isStopped(pid)).toBe(false));
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(isStopped(pid)).toBe(false);
});

test("is told at the second look, once each time, and no longer than watched", async () => {
  const clock = createFakeClock();
  const stopped = new Set<number>();
  const told: number[] = [];
  using watch = createStopWatch(clock, (pid) => stopped.has(pid));
  const first = watch.watch(1, () => told.push(1));
  const second = watch.watch(2, () => told.push(2));
  stopped.add(1);
  stopped.add(3);
  expect([1, 2, 3].map((pid) => watch.isStopped(pid))).toEqual([true, false, true]);
  await clock.advance(100);
  expect(told).toEqual([]);
  await clock.advance(100);
  expect(told).toEqual([1]);
  await clock.advance(1000);
  expect(told).toEqual([1]);
  stopped.delete(1);
  await clock.advance(100);
  stopped.add(1);
  await clock.advance(200);
  expect(told).toEqual([1, 1]);
  expect(watch.isStopped(1)).toBe(true);
  first[Symbol.dispose]();
  stopped.delete(1);
  expect(watch.isStopped(1)).toBe(false);
  second[Symbol.dispose]();
  await clock.advance(100);
  expect(clock.armed).toBe(0);
});
