import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, onTestFinished, test } from "vitest";
import {
  argumentsOf,
  findProcesses,
  hasEnvironment,
  isAlive,
  processId,
  signalAll,
  waitUntilGone,
} from "./processes.ts";

async function start(env: Record<string, string> = {}) {
  const child = spawn("sleep", ["30"], { env: { PATH: process.env["PATH"], ...env } });
  onTestFinished(() => void child.kill("SIGKILL"));
  await once(child, "spawn");
  const id = processId(child.pid ?? 0);
  if (id === undefined) throw new Error("no such process");
  return { child, id };
}

test("a process is known by its pid and start time", async () => {
  const { id } = await start();
  expect(isAlive(id)).toBe(true);
  expect(isAlive({ ...id, startTime: "1" })).toBe(false);
  expect(processId(2 ** 22 + 1)).toBeUndefined();
});

test("a recycled pid is not sent a signal", async () => {
  const { id } = await start();
  signalAll([{ ...id, startTime: "1" }], "SIGKILL");
  expect(await waitUntilGone([id], 50)).toBe(false);
  signalAll([id], "SIGKILL");
  expect(await waitUntilGone([id], 5000)).toBe(true);
});

test("processes are found by a mark in their environment, whole and not in part", async () => {
  const { id } = await start({ _NSM_DEMO_RUN: "unit7" });
  const found = (mark: string) => findProcesses((pid) => hasEnvironment(pid, mark)).map(({ pid }) => pid);
  expect(found("_NSM_DEMO_RUN=unit7")).toEqual([id.pid]);
  expect(found("_NSM_DEMO_RUN=unit")).toEqual([]);
  expect(argumentsOf(id.pid)).toEqual(["sleep", "30"]);
});

test("a process that has ended and waits for its parent counts as gone", async () => {
  const parent = spawn("sh", ["-c", "sleep 0 & echo $!; exec sleep 30"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  onTestFinished(() => void parent.kill("SIGKILL"));
  let said = "";
  for await (const chunk of parent.stdout) {
    said += String(chunk);
    break;
  }
  const pid = Number(said);
  await expect.poll(() => processId(pid)).toBeUndefined();
  expect(argumentsOf(pid)).toEqual([]); // it is still there, as a zombie
});
