import { getEventListeners } from "node:events";
import { expect, test } from "vitest";
import { abortWith } from "./abort-with.ts";

test("it aborts with the first of those that it follows, with that one's reason", () => {
  const [a, b] = [new AbortController(), new AbortController()];
  using both = abortWith(a.signal, undefined, b.signal);
  expect(both.signal.aborted).toBe(false);
  b.abort("second");
  a.abort("first");
  expect(both.signal.reason).toBe("second");
});

test("it aborts by itself, and others hear nothing of it", () => {
  const a = new AbortController();
  using both = abortWith(a.signal);
  both.abort("own");
  expect(both.signal.reason).toBe("own");
  expect(a.signal.aborted).toBe(false);
});

test("what has aborted before counts, too, and nothing is followed then that would not be let go", () => {
  const a = new AbortController();
  const both = abortWith(a.signal, AbortSignal.abort("before"));
  expect(both.signal.reason).toBe("before");
  both[Symbol.dispose]();
  expect(getEventListeners(a.signal, "abort")).toEqual([]);
});

test("disposed of, it follows nobody and leaves no listener behind", () => {
  const a = new AbortController();
  const both = abortWith(a.signal);
  both[Symbol.dispose]();
  a.abort();
  expect(both.signal.aborted).toBe(false);
  expect(getEventListeners(a.signal, "abort")).toEqual([]);
});
