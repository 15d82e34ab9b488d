import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { MechanismSchema } from "../../api/gen/connection_pb.js";
import type { CallContext } from "../../sdk/chain.ts";
import type { WithEvents } from "../../sdk/elements/begin.ts";
import { silentLogger } from "../../sdk/log.ts";
import { callBy, connectionOn, createRecorder, eventsOf, requestOn } from "../../test/support/chain.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { makePeer } from "../../test/support/peer.ts";
import { startSleeper } from "../../test/support/sleeper.ts";
import type { WithClientEnd } from "./client-side.ts";
import { createOrphans } from "./orphans.ts";

const ASK_AGAIN_MS = 10_000;
const LONG_MS = 60_000;

/** The element over a chain's end that records; `closed` are the ids that it ended by itself. */
function build() {
  const clock = createFakeClock(0);
  const orphans = createOrphans({ clock, log: silentLogger });
  const service = orphans.element(createRecorder<CallContext & WithEvents & WithClientEnd>());
  const closed: string[] = [];
  const contextOf = async (manager: number, client: number, close = () => Promise.resolve()) => ({
    ...eventsOf(callBy(await makePeer("/nsmgr/node1", manager)), { events: { close } }),
    clientEnd: { kind: "kernel", netns: { pid: client, inode: 1n }, interfaceName: "nsm-1" } as const,
    clientMechanism: create(MechanismSchema),
  });
  const close = async (wire: string) => service.close(connectionOn([wire]), await contextOf(1, 1));
  const ask = async (wire: string, by: { readonly manager: number; readonly client: number }) => {
    const ctx = await contextOf(by.manager, by.client, () => {
      closed.push(wire);
      return close(wire);
    });
    await service.request(requestOn([wire]), ctx);
  };
  return { clock, orphans, ask, close, closed };
}

test("a wire is closed when client and manager have ended, and a manager has been back for a while", async () => {
  const { clock, orphans, ask, closed } = build();
  using client = await startSleeper();
  using manager = await startSleeper();
  await ask("wire", { manager: manager.pid, client: client.pid });
  await Promise.all([client.kill(), manager.kill()]);
  await clock.advance(LONG_MS);
  expect(closed).toEqual([]);
  orphans.managerServes();
  expect(closed).toEqual([]);
  await clock.advance(LONG_MS);
  expect(closed).toEqual(["wire"]);
  orphans.managerServes();
  await clock.advance(LONG_MS);
  expect(closed).toEqual(["wire"]);
});

test("a wire whose manager lives is that manager's to close, and one whose client lives is nobody's", async () => {
  const { clock, orphans, ask, closed } = build();
  using client = await startSleeper();
  using manager = await startSleeper();
  await ask("of a dead client", { manager: process.pid, client: client.pid });
  await ask("of a dead manager", { manager: manager.pid, client: process.pid });
  await Promise.all([client.kill(), manager.kill()]);
  orphans.managerServes();
  await clock.advance(LONG_MS);
  expect(closed).toEqual([]);
});

test("a client that ends after its manager, without having asked the next one, is seen the next time", async () => {
  const { clock, orphans, ask, closed } = build();
  using client = await startSleeper();
  using manager = await startSleeper();
  await ask("wire", { manager: manager.pid, client: client.pid });
  await manager.kill();
  orphans.managerServes();
  await clock.advance(LONG_MS);
  await client.kill();
  orphans.managerServes();
  await clock.advance(LONG_MS);
  expect(closed).toEqual(["wire"]);
});

test("the time that counts is that of a manager which serves after both have ended", async () => {
  const { clock, orphans, ask, closed } = build();
  using client = await startSleeper();
  using manager = await startSleeper();
  await ask("wire", { manager: manager.pid, client: client.pid });
  orphans.managerServes();
  await Promise.all([client.kill(), manager.kill()]);
  await clock.advance(LONG_MS);
  expect(closed).toEqual([]);
  orphans.managerServes();
  await clock.advance(ASK_AGAIN_MS - 1);
  orphans.managerServes(); // yet another one, whom nobody has asked
  await clock.advance(ASK_AGAIN_MS - 1);
  expect(closed).toEqual([]);
  await clock.advance(1);
  expect(closed).toEqual(["wire"]);
});

test("what was asked for again through the next manager stays", async () => {
  const { clock, orphans, ask, closed } = build();
  using client = await startSleeper();
  using manager = await startSleeper();
  await ask("wire", { manager: manager.pid, client: client.pid });
  await Promise.all([client.kill(), manager.kill()]);
  orphans.managerServes();
  await ask("wire", { manager: process.pid, client: process.pid });
  await clock.advance(LONG_MS);
  expect(closed).toEqual([]);
});

test("what was closed in time is not closed again, and no timer outlives its owner", async () => {
  const { clock, orphans, ask, close, closed } = build();
  using client = await startSleeper();
  using manager = await startSleeper();
  await ask("wire", { manager: manager.pid, client: client.pid });
  await close("wire");
  await Promise.all([client.kill(), manager.kill()]);
  orphans.managerServes();
  await clock.advance(LONG_MS);
  expect(closed).toEqual([]);
  orphans.managerServes();
  orphans[Symbol.dispose]();
  expect(clock.armed).toBe(0);
});
