/** Requests for ids whose connections were closed: legitimate, or held back by a broken session. */
import { expect, test } from "vitest";
import { State } from "../../api/gen/connection_pb.js";
import { callBy, createRecorder, requestOn } from "../../test/support/chain.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { makePeer } from "../../test/support/peer.ts";
import type { CallContext } from "../chain.ts";
import { NsmError } from "../errors.ts";
import { silentLogger } from "../log.ts";
import { begin } from "./begin.ts";
import type { WithEvents } from "./begin.ts";
import { connectionOf } from "./update-path.ts";

const ALICE = callBy(await makePeer("/alice"));

function build() {
  const recorder = createRecorder<CallContext & WithEvents>();
  const service = begin({ owner: () => "alice", log: silentLogger, clock: createFakeClock() })(recorder);
  /** A refresh that knows the way behind us. */
  const refresh = () => {
    const request = requestOn(["client", "me", "next"]);
    const connection = connectionOf(request);
    connection.id = "me";
    if (connection.path !== undefined) connection.path.index = 1;
    return request;
  };
  const close = (state = State.UP) => service.close(Object.assign(connectionOf(refresh()), { state }), ALICE);
  const waysAsked = () =>
    recorder.calls
      .filter(({ kind }) => kind === "request")
      .map(({ connection }) => connection.path?.pathSegments.map(({ id }) => id));
  return { recorder, service, refresh, close, waysAsked };
}

const [WHOLE, CUT] = [
  ["client", "me", "next"],
  ["client", "me"],
];

test("a Request for a closed connection makes a new way behind us, and the next one goes along it", async () => {
  const { service, refresh, close, waysAsked } = build();
  await service.request(refresh(), ALICE);
  await close();
  await service.request(refresh(), ALICE);
  await service.request(refresh(), ALICE);
  expect(waysAsked()).toEqual([WHOLE, CUT, CUT]);
});

test("one whose caller turns out to have left is undone, though it knew a way", async () => {
  const { recorder, service, refresh, close } = build();
  await service.request(refresh(), ALICE);
  await close();
  const left = new AbortController();
  recorder.answer = ({ kind, connection }) => {
    if (kind === "request") left.abort(new NsmError("CANCELLED", "cancelled", "the session was closed"));
    return Promise.resolve(connection);
  };
  await expect(service.request(refresh(), { ...ALICE, signal: left.signal })).rejects.toMatchObject({
    code: "CANCELLED",
  });
  expect(recorder.calls.map(({ kind }) => kind)).toEqual(["request", "close", "request", "close"]);
});

test("after the end of a hop before, which is no wish, what is behind is gone on with", async () => {
  const { service, refresh, close, waysAsked } = build();
  await service.request(refresh(), ALICE);
  await close(State.DOWN);
  await service.request(refresh(), ALICE);
  expect(waysAsked()).toEqual([WHOLE, WHOLE]);
});
