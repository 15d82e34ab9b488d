import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { callBy, connectionOn, createRecorder, eventsOf, requestOn } from "../../test/support/chain.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { makePeer } from "../../test/support/peer.ts";
import type { CallContext } from "../chain.ts";
import { NsmError } from "../errors.ts";
import type { WithEvents } from "./begin.ts";
import { timeout } from "./timeout.ts";

const PEER = await makePeer("/a");

function build() {
  const clock = createFakeClock();
  const recorder = createRecorder<CallContext & WithEvents>();
  const closed: string[] = [];
  const close = (why: string) => {
    closed.push(why);
    return Promise.resolve();
  };
  const ask = (lifeMs: number | undefined, budgetMs?: number) => {
    const request = requestOn(["client", "me"]);
    const caller = request.connection?.path?.pathSegments[0];
    if (caller !== undefined && lifeMs !== undefined) caller.expires = timestampFromMs(clock.now() + lifeMs);
    const deadlineMs = budgetMs === undefined ? undefined : clock.now() + budgetMs;
    return service.request(request, eventsOf(callBy(PEER, { deadlineMs }), { events: { close } }));
  };
  const service = timeout(clock)(recorder);
  return { clock, closed, ask, service, recorder };
}

test("closes when the caller's lease runs out", async () => {
  const { clock, closed, ask } = build();
  await ask(60_000);
  await clock.advance(59_999);
  expect(closed).toEqual([]);
  await clock.advance(1);
  expect(closed).toHaveLength(1);
});

test("closes earlier by the time that the request was given, so that tokens are still valid", async () => {
  const { clock, closed, ask } = build();
  await ask(60_000, 15_000);
  await clock.advance(45_000);
  expect(closed).toHaveLength(1);
});

test("keeps a lease that is shorter than the time of the request for three quarters of its life", async () => {
  const { clock, closed, ask } = build();
  await ask(10_000, 15_000);
  await clock.advance(7499);
  expect(closed).toEqual([]);
  await clock.advance(1);
  expect(closed).toHaveLength(1);
});

test("a refresh moves the end", async () => {
  const { clock, closed, ask } = build();
  await ask(60_000);
  await clock.advance(40_000);
  await ask(60_000);
  await clock.advance(59_999);
  expect(closed).toEqual([]);
  expect(clock.armed).toBe(1);
});

test("refreshes that fail do not move the end, which comes once however many there were", async () => {
  const { clock, closed, ask, recorder } = build();
  await Promise.all(Array.from({ length: 1000 }, () => ask(60_000)));
  expect(clock.armed).toBe(1);
  recorder.answer = () => Promise.reject(new NsmError("UNAVAILABLE", "unreachable", "the next hop is away"));
  for (let refresh = 0; refresh < 5; refresh++) {
    await clock.advance(10_000);
    await expect(ask(60_000)).rejects.toMatchObject({ reason: "unreachable" });
  }
  await clock.advance(9999);
  expect(closed).toEqual([]);
  await clock.advance(100_000);
  expect(closed).toHaveLength(1);
});

test("close leaves no timer", async () => {
  const { clock, ask, service } = build();
  await ask(60_000);
  await service.close(connectionOn(["client", "me"]), eventsOf(callBy(PEER)));
  expect(clock.armed).toBe(0);
});

test("a caller without a token is told which metadata is missing", async () => {
  const { clock, ask } = build();
  await expect(ask(undefined)).rejects.toMatchObject({ code: "INVALID_ARGUMENT", reason: "token-missing" });
  expect(clock.armed).toBe(0);
});

test("a deadline longer than the lease takes a quarter of it at most", async () => {
  const { clock, closed, ask } = build();
  await ask(8000, 15_000);
  await clock.advance(5999);
  expect(closed).toEqual([]);
  await clock.advance(1);
  expect(closed).toHaveLength(1);
});

test("a lease of 30 days does not overflow the timer", async () => {
  const { clock, closed, ask } = build();
  await ask(30 * 24 * 3_600_000);
  await clock.advance(29 * 24 * 3_600_000);
  expect(closed).toEqual([]);
});
