import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test, vi } from "vitest";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { systemClock } from "../../sdk/clock.ts";
import { createStopWatch } from "./stopped.ts";

test("a process that was stopped is told from one that runs, and from one that ended", async () => {
  const child = spawn("sleep", ["60"]);
  await once(child, "spawn");
  const pid = child.pid ?? 0;
  using watch = createStopWatch(systemClock);
  const isStopped = (of: number) => watch.isStopped(of);
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
  const opened: number[] = [];
  using watch = createStopWatch(clock, (pid) => {
    opened.push(pid);
    return {
      state: () => (stopped.has(pid) ? "T" : "S"),
      [Symbol.dispose]: () => void opened.splice(opened.indexOf(pid), 1),
    };
  });
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
  expect(opened).toEqual([]);
});

test("a process is held once however many listen, a later one with its pid is another", async () => {
  const clock = createFakeClock();
  const ended = new Set<string>();
  const lives: string[] = [];
  let life = "first";
  using watch = createStopWatch(clock, () => {
    const own = life;
    lives.push(own);
    return {
      state: () => (ended.has(own) ? undefined : own === "second" ? "T" : "S"),
      [Symbol.dispose]: () => void lives.splice(lives.indexOf(own), 1),
    };
  });
  const told: string[] = [];
  const early = [1, 2, 3].map((n) => watch.watch(7, () => told.push(`early ${n}`)));
  expect(lives).toEqual(["first"]);
  ended.add("first");
  life = "second";
  using late = watch.watch(7, () => told.push("late"));
  void late;
  await clock.advance(200);
  expect(told).toEqual(["late"]);
  expect(lives).toEqual(["second"]);
  for (const each of early) each[Symbol.dispose]();
  expect(lives).toEqual(["second"]);
  expect(watch.isStopped(7)).toBe(true);
});

test("processes that are watched are seen to stop, go on and end", async () => {
  const clock = createFakeClock();
  const child = spawn("sleep", ["60"]);
  await once(child, "spawn");
  const pid = child.pid ?? 0;
  const told: string[] = [];
  using watch = createStopWatch(clock);
  using listening = watch.watch(pid, () => told.push("stopped"));
  void listening;
  child.kill("SIGSTOP");
  await vi.waitFor(async () => {
    await clock.advance(100);
    expect(told).toEqual(["stopped"]);
  });
  child.kill("SIGCONT");
  await vi.waitFor(async () => {
    await clock.advance(100);
    expect(watch.isStopped(pid)).toBe(false);
  });
  child.kill("SIGKILL");
  await once(child, "exit");
  await clock.advance(1000);
  expect(watch.isStopped(pid)).toBe(false);
  expect(told).toEqual(["stopped"]);
});
