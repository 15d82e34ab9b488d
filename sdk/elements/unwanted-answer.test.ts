import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Connection } from "../../api/gen/connection_pb.js";
import { connectionOn } from "../../test/support/chain.ts";
import { NsmError } from "../errors.ts";
import { askOnce } from "./unwanted-answer.ts";
import type { Hearing } from "./unwanted-answer.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const left = new NsmError("CANCELLED", "left", "the caller left");

function ask({ hears = true, deadlineMs }: { hears?: boolean; deadlineMs?: number } = {}) {
  const caller = new AbortController();
  const answer = Promise.withResolvers<Connection>();
  const undone: Connection[] = [];
  let hearing: Hearing | undefined;
  const asked = askOnce(
    (given) => {
      hearing = given;
      return answer.promise;
    },
    { hears: () => hears, undo: (unwanted) => void undone.push(unwanted) },
    { signal: caller.signal, deadlineMs },
  );
  const outcome = asked.then(
    () => "answered",
    (error: unknown) => (error instanceof NsmError ? error.reason : "failed"),
  );
  const give = () => answer.resolve(connectionOn(["client", "me"]));
  return { caller, answer, undone, outcome, give, hearing: () => hearing };
}

test("an answer reaches the caller that waits for it, and is not undone when it leaves afterwards", async () => {
  const { caller, undone, outcome, give } = ask();
  give();
  expect(await outcome).toBe("answered");
  caller.abort(left);
  await vi.advanceTimersByTimeAsync(20_000);
  expect(undone).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
});

test.each([
  ["before its caller", false, "answered", 0],
  ["after its caller", true, "left", 1],
])(
  "an answer in the moment of leaving, %s: is heard or undone, never both",
  async (_, isFirst, what, count) => {
    const { caller, undone, outcome, give, answer } = ask();
    if (isFirst) caller.abort(left);
    give();
    await answer.promise;
    caller.abort(left);
    expect(await outcome).toBe(what);
    await vi.advanceTimersByTimeAsync(20_000);
    expect(undone).toHaveLength(count);
  },
);

test("when the deadline passes the hop has given up, and what it made at that moment is undone", async () => {
  const { undone, outcome, give, hearing } = ask({ deadlineMs: Date.now() + 5000 });
  expect(hearing()?.deadlineMs).toBe(Date.now() + 5000);
  await vi.advanceTimersByTimeAsync(5000);
  expect(await outcome).toBe("deadline-exceeded");
  expect(hearing()).toMatchObject({ signal: { aborted: false }, wanted: { aborted: true } });
  give();
  await vi.advanceTimersByTimeAsync(0);
  expect(undone).toHaveLength(1);
});

test("who does not answer is heard for a second, a hop that makes nothing new not at all", async () => {
  const patient = ask();
  const other = ask({ hears: false });
  for (const { caller } of [patient, other]) caller.abort(left);
  expect(patient.hearing()?.signal.aborted).toBe(false);
  expect(other.hearing()?.signal.aborted).toBe(true);
  await vi.advanceTimersByTimeAsync(1000);
  expect(patient.hearing()?.signal.aborted).toBe(true);
  for (const { outcome, answer } of [patient, other]) {
    answer.reject(left);
    expect(await outcome).toBe("left");
  }
  expect(vi.getTimerCount()).toBe(0);
});
