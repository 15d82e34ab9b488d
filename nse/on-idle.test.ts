/** The scenarios of endpoints that stop when idle. */
import { expect, test } from "vitest";
import type { CallContext } from "../sdk/chain.ts";
import type { WithEvents } from "../sdk/elements/begin.ts";
import { callBy, connectionOn, createRecorder, eventsOf, requestOn } from "../test/support/chain.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { makePeer } from "../test/support/peer.ts";
import { createIdle, onIdle } from "./on-idle.ts";

const TIMEOUT_MS = 15_000;
const peer = await makePeer("/forwarder");

function build(timeoutMs = TIMEOUT_MS) {
  const clock = createFakeClock();
  const stops: string[] = [];
  const idle = createIdle({ timeoutMs, clock, stop: (why) => stops.push(why) });
  const next = createRecorder<CallContext & WithEvents>();
  const ctx = eventsOf(callBy(peer));
  return { clock, stops, idle, next, ctx, chain: onIdle(idle)(next) };
}

test("without a timeout it never stops", async () => {
  const { clock, stops } = build(0);
  await clock.advance(100 * TIMEOUT_MS);
  expect(stops).toEqual([]);
});

test("an endpoint that nobody asks for stops", async () => {
  const { clock, stops } = build();
  await clock.advance(TIMEOUT_MS - 1);
  expect(stops).toEqual([]);
  await clock.advance(1);
  expect(stops).toEqual(["no connection for 15 s"]);
});

test("a connection that is refreshed counts once", async () => {
  const { clock, stops, chain, ctx } = build();
  await chain.request(requestOn(["client", "nse"]), ctx);
  await chain.request(requestOn(["client", "nse"]), { ...ctx, established: true });
  await chain.close(connectionOn(["client", "nse"]), ctx);
  await clock.advance(TIMEOUT_MS);
  expect(stops).toHaveLength(1);
});

test("it does not stop while any connection is held, and the time begins anew after the last", async () => {
  const { clock, stops, chain, ctx } = build();
  await chain.request(requestOn(["client", "nse"], ["c", "one"]), ctx);
  await chain.request(requestOn(["client", "nse"], ["c", "two"]), ctx);
  await chain.close(connectionOn(["client", "nse"], ["c", "one"]), ctx);
  await clock.advance(10 * TIMEOUT_MS);
  expect(stops).toEqual([]);
  await chain.close(connectionOn(["client", "nse"], ["c", "two"]), ctx);
  await clock.advance(TIMEOUT_MS - 1);
  expect(stops).toEqual([]);
  await clock.advance(1);
  expect(stops).toHaveLength(1);
});

test("a first request that fails is no connection, a refresh that fails leaves one", async () => {
  const { clock, stops, chain, ctx, next } = build();
  next.answer = () => Promise.reject(new Error("no"));
  await expect(chain.request(requestOn(["client", "nse"], ["c", "one"]), ctx)).rejects.toThrow("no");
  next.answer = ({ connection }) => Promise.resolve(connection);
  await chain.request(requestOn(["client", "nse"], ["c", "two"]), ctx);
  next.answer = () => Promise.reject(new Error("no"));
  await expect(
    chain.request(requestOn(["client", "nse"], ["c", "two"]), { ...ctx, established: true }),
  ).rejects.toThrow("no");
  await clock.advance(10 * TIMEOUT_MS);
  expect(stops).toEqual([]);
});

test("an endpoint that ends before does not stop again", async () => {
  const { clock, stops, idle } = build();
  idle[Symbol.dispose]();
  await clock.advance(10 * TIMEOUT_MS);
  expect(stops).toEqual([]);
});

test("a request after the time is over is refused, with a text that says so", async () => {
  const { clock, chain, ctx, next } = build();
  await clock.advance(TIMEOUT_MS);
  await expect(chain.request(requestOn(["client", "nse"]), ctx)).rejects.toMatchObject({
    code: "FAILED_PRECONDITION",
    reason: "endpoint-expired",
    message: expect.stringContaining("endpoint expired"),
  });
  expect(next.calls).toEqual([]);
});
