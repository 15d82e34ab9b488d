import { expect, test } from "vitest";
import { State } from "../../api/gen/connection_pb.js";
import { callBy, createRecorder, eventsOf, requestOn } from "../../test/support/chain.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { makePeer } from "../../test/support/peer.ts";
import type { CallContext } from "../chain.ts";
import { NsmError } from "../errors.ts";
import type { WithEvents } from "./begin.ts";
import { createHistory, recordHistory } from "./history.ts";

const PEER = await makePeer("/client");
const refused = new NsmError("UNAVAILABLE", "no-forwarder", "none is here");

function build() {
  const clock = createFakeClock(1000);
  const history = createHistory(clock);
  const next = createRecorder<CallContext & WithEvents>();
  const element = recordHistory(history)(next);
  const ask = (state = State.UP, established = true) => {
    const request = requestOn(["client", "me"]);
    if (request.connection !== undefined) {
      request.connection.state = state;
      request.connection.networkServiceEndpointName = "nse-1";
    }
    return element.request(request, eventsOf(callBy(PEER), { established }));
  };
  const close = (ctx: Partial<CallContext & WithEvents> = {}) => {
    const { connection } = requestOn(["client", "me"]);
    if (connection === undefined) throw new Error("no connection");
    return element.close(connection, { ...eventsOf(callBy(PEER)), ...ctx });
  };
  const words = () => history.of("me").map(({ what, why }) => (why === "" ? what : `${what}: ${why}`));
  return { clock, history, next, ask, close, words };
}

test("a wire's life is told in order, and refreshes of a wire that is well are not", async () => {
  const { ask, close, history, words } = build();
  await ask(State.UP, false);
  await ask();
  await ask();
  history.note("me", "down", "its process ended");
  await ask(State.RESELECT_REQUESTED);
  await ask();
  await close();
  expect(words()).toEqual([
    "made: endpoint nse-1",
    "down: its process ended",
    "healed: endpoint nse-1",
    `closed: by ${PEER.spiffeId}`,
  ]);
});

test("failures say their code and reason, are counted while they stay the same, and end with 'mended'", async () => {
  const { ask, clock, next, history, words } = build();
  await ask(State.UP, false);
  const answer = next.answer;
  next.answer = () => Promise.reject(refused);
  for (let i = 0; i < 3; i++) {
    await clock.advance(1000);
    await expect(ask()).rejects.toThrow("none is here");
  }
  next.answer = answer;
  await ask();
  expect(words()).toEqual([
    "made: endpoint nse-1",
    "failed: UNAVAILABLE no-forwarder: none is here",
    "mended: endpoint nse-1",
  ]);
  expect(history.of("me")[1]).toMatchObject({ count: 3, timeMs: 4000 });
});

test("who never had a wire leaves nothing, and who closes it by a lease is not named", async () => {
  const { ask, close, next, words } = build();
  next.answer = () => Promise.reject(refused);
  await expect(ask(State.UP, false)).rejects.toThrow();
  await expect(close()).rejects.toThrow();
  expect(words()).toEqual([]);
  next.answer = ({ connection }) => Promise.resolve(connection);
  await ask(State.UP, false);
  await close({ peer: undefined, why: "its lease ran out" });
  expect(words().at(-1)).toBe("closed: its lease ran out");
});

test("the last 16 events of a wire are kept, of the last 1024 wires, and long texts are cut", () => {
  const { history } = build();
  for (let i = 0; i < 20; i++) history.note("me", "failed", `fault ${i}`);
  expect(history.of("me")).toHaveLength(16);
  expect(history.of("me")[0]).toMatchObject({ why: "fault 4" });
  history.note("long", "failed", "x".repeat(1000));
  expect(history.of("long")[0]?.why).toHaveLength(301);
  for (let i = 0; i < 1024; i++) history.note(`wire-${i}`, "made");
  expect(history.of("me")).toEqual([]);
  expect(history.of("wire-0")).toHaveLength(1);
});
