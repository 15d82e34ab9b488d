import { expect, test } from "vitest";
import type { CallContext } from "../sdk/chain.ts";
import type { WithEvents } from "../sdk/elements/begin.ts";
import { silentLogger } from "../sdk/log.ts";
import { callBy, connectionOn, createRecorder, eventsOf, requestOn } from "../test/support/chain.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { eventually } from "../test/support/netns.ts";
import { makePeer } from "../test/support/peer.ts";
import { startSleeper } from "../test/support/sleeper.ts";
import { closeForDead } from "./client-death.ts";

const GRACE_MS = 1000;

/** The element over a chain's end that records; `closed` are the ids that it ended by itself. */
function build() {
  const clock = createFakeClock(0);
  const end = createRecorder<CallContext & WithEvents>();
  const service = closeForDead({ clock, log: silentLogger, clientGraceMs: GRACE_MS })(end);
  const closed: string[] = [];
  const call = async (id: string, pid: number) => {
    const peer = await makePeer("/nsc/c", pid);
    const close = () => {
      closed.push(id);
      return service.close(connectionOn(["client", id]), eventsOf(callBy(peer)));
    };
    await service.request(requestOn(["client", id]), eventsOf(callBy(peer), { events: { close } }));
  };
  /** The end of a process is heard of, and the grace begins. */
  const waitsForSuccessor = () => eventually("the grace begins", () => clock.armed > 0);
  return { clock, service, closed, call, waitsForSuccessor };
}

test("the wires of a process that ended are closed after the grace, and nobody else's", async () => {
  const { clock, closed, call, waitsForSuccessor } = build();
  using client = await startSleeper();
  using neighbour = await startSleeper();
  await call("a", client.pid);
  await call("b", client.pid);
  await call("other", neighbour.pid);
  await client.kill();
  await waitsForSuccessor();
  await clock.advance(GRACE_MS - 1);
  expect(closed).toEqual([]);
  await clock.advance(1);
  expect(closed).toEqual(["a", "b"]);
});

test("what its successor asks for within the grace stays", async () => {
  const { clock, closed, call, waitsForSuccessor } = build();
  using client = await startSleeper();
  using successor = await startSleeper();
  await call("a", client.pid);
  await call("b", client.pid);
  await client.kill();
  await waitsForSuccessor();
  await call("a", successor.pid);
  await clock.advance(GRACE_MS);
  expect(closed).toEqual(["b"]);
  await successor.kill();
  await waitsForSuccessor();
  await clock.advance(GRACE_MS);
  expect(closed).toEqual(["b", "a"]);
});

test("a wire that was closed in time is not closed again", async () => {
  const { clock, service, closed, call } = build();
  using client = await startSleeper();
  await call("a", client.pid);
  await service.close(connectionOn(["client", "a"]), eventsOf(callBy(await makePeer("/nsc/c", client.pid))));
  await client.kill();
  await clock.advance(10 * GRACE_MS);
  expect(closed).toEqual([]);
  expect(clock.armed).toBe(0);
});
