import { create } from "@bufbuild/protobuf";
import { statSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { MechanismSchema } from "../../api/gen/connection_pb.js";
import type { Mechanism } from "../../api/gen/connection_pb.js";
import type { CallContext } from "../../sdk/chain.ts";
import type { WithEvents } from "../../sdk/elements/begin.ts";
import { callBy, createRecorder, eventsOf, requestOn } from "../../test/support/chain.ts";
import { createFakeDataplane } from "../../test/support/dataplane.ts";
import { makePeer } from "../../test/support/peer.ts";
import { startSleeper } from "../../test/support/sleeper.ts";
import { createClientNamespaces } from "./client-namespaces.ts";
import { clientSide } from "./client-side.ts";
import type { WithClientEnd } from "./client-side.ts";
import { createTunnels } from "./tunnels.ts";

const MANAGER = callBy(await makePeer("/nsmgr/node1", 1));
const STRANGER = callBy(await makePeer("/nsc/x", 1));
const own = statSync("/proc/self/ns/net", { bigint: true });
const OWN_URL = `inode://${own.dev}/${own.ino}`;

function build(priority: string[] = [], acceptDefaultRoute = false, protectedAddresses: string[] = []) {
  const dataplane = createFakeDataplane();
  const recorder = createRecorder<CallContext & WithEvents & WithClientEnd>();
  const seen: WithClientEnd[] = [];
  recorder.answer = (call, ctx) => {
    seen.push(ctx);
    return Promise.resolve(call.connection);
  };
  const isManager = (ctx: CallContext) => ctx.peer?.spiffeId === "spiffe://example.org/nsmgr/node1";
  const tunnels = createTunnels({ dataplane, tunnelIp: "192.0.2.1", vxlanPort: 4789 });
  const release = (id: string) => dataplane.release(id);
  const namespaces = createClientNamespaces(dataplane, isManager);
  const service = clientSide(
    { tunnels, isManager, priority, acceptDefaultRoute, protectedAddresses, release },
    namespaces,
  )(recorder);
  const ask = (mechanisms: Mechanism[], ctx = MANAGER, established = false) => {
    const request = requestOn(["manager", "forwarder"]);
    request.mechanismPreferences = mechanisms;
    return service.request(request, eventsOf(ctx, { established }));
  };
  return { ask, seen, recorder, dataplane };
}

const kernel = (parameters: Record<string, string>) =>
  create(MechanismSchema, { cls: "LOCAL", type: "KERNEL", parameters });
const mine = (more: Record<string, string> = {}) =>
  kernel({ name: "nsm-1", inodeURL: OWN_URL, peerPID: String(process.pid), ...more });
const other = (type: string) => create(MechanismSchema, { cls: "REMOTE", type });

describe("the namespace", () => {
  test("is that of the process that the manager vouches for", async () => {
    const { ask, seen } = build();
    const answer = await ask([mine()]);
    expect(seen[0]?.clientEnd).toEqual({
      kind: "kernel",
      netns: { pid: process.pid, inode: own.ino },
      interfaceName: "nsm-1",
      isBare: false,
      acceptsDefaultRoute: false,
    });
    expect(answer.mechanism?.parameters).toMatchObject({ name: "nsm-1", inodeURL: OWN_URL });
  });

  test("takes default routes when it says so, or when all of the node do", async () => {
    const one = build();
    await one.ask([mine({ acceptDefaultRoute: "true" })]);
    expect(one.seen[0]?.clientEnd).toMatchObject({ acceptsDefaultRoute: true });
    const all = build([], true);
    await all.ask([mine()]);
    expect(all.seen[0]?.clientEnd).toMatchObject({ acceptsDefaultRoute: true });
  });

  test("keeps to itself what it says, and what the operator says of all", async () => {
    const { ask, seen } = build([], false, ["10.96.0.10"]);
    await ask([mine({ protectedAddresses: "192.0.2.53;fd96::a" })]);
    await ask([mine({ protectedAddresses: "" })]);
    expect(seen.map(({ clientEnd }) => clientEnd)).toMatchObject([
      { protectedAddresses: ["10.96.0.10", "192.0.2.53", "fd96::a"] },
      { protectedAddresses: ["10.96.0.10"] },
    ]);
    const many = Array.from({ length: 17 }, (_, i) => `192.0.2.${i}`).join(";");
    await expect(ask([mine({ protectedAddresses: many })])).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "limit",
    });
  });

  test("may be left unnamed, and a path of the writer's view is never opened", async () => {
    const { ask, seen } = build();
    await ask([mine({ inodeURL: "" })]);
    await ask([mine({ inodeURL: "file:///proc/1/ns/net" })]);
    expect(seen.map(({ clientEnd }) => clientEnd)).toEqual([
      expect.objectContaining({ netns: { pid: process.pid, inode: own.ino } }),
      expect.objectContaining({ netns: { pid: process.pid, inode: own.ino } }),
    ]);
  });

  test.each([
    [
      "another namespace's inode",
      mine({ inodeURL: "inode://4/1" }),
      MANAGER,
      "netns-mismatch",
      "PERMISSION_DENIED",
    ],
    ["no word of the manager", mine({ peerPID: "" }), MANAGER, "netns-unproven", "PERMISSION_DENIED"],
    ["a pid that is none", mine({ peerPID: "-1" }), MANAGER, "netns-unproven", "PERMISSION_DENIED"],
    ["a caller that is not the manager", mine(), STRANGER, "netns-unproven", "PERMISSION_DENIED"],
    [
      "an inode that is none",
      mine({ inodeURL: "inode://4/x" }),
      MANAGER,
      "bad-inode-url",
      "INVALID_ARGUMENT",
    ],
    [
      "an inode beyond 64 bits",
      mine({ inodeURL: `inode://4/${"9".repeat(30)}` }),
      MANAGER,
      "bad-inode-url",
      "INVALID_ARGUMENT",
    ],
  ])("is refused with %s", async (_, mechanism, ctx, reason, code) => {
    const { ask, recorder, dataplane } = build();
    await expect(ask([mechanism], ctx)).rejects.toMatchObject({ code, reason });
    expect(recorder.calls).toEqual([]);
    expect(dataplane.released).toEqual(["forwarder"]);
  });

  test("of a process that ended is gone", async () => {
    const sleeper = await startSleeper();
    await sleeper.kill();
    const { ask } = build();
    await expect(ask([mine({ peerPID: String(sleeper.pid) })])).rejects.toMatchObject({
      code: "NOT_FOUND",
      reason: "netns-gone",
    });
  });
});

describe("the interface name", () => {
  test("is made from the service's when the client has no wish", async () => {
    const { ask } = build();
    expect((await ask([mine({ name: "" })])).mechanism?.parameters["name"]).toMatch(
      /^service-[0-9A-Za-z]{7}$/,
    );
  });

  test.each(["-h", "$(id)", "x%d", "a234567890123456", "lo", "..", "a/b", "all"])(
    "%j is refused",
    async (name) => {
      const { ask } = build();
      await expect(ask([mine({ name })])).rejects.toMatchObject({
        code: "INVALID_ARGUMENT",
        reason: "bad-interface-name",
        message: expect.stringContaining(name),
      });
    },
  );
});

describe("the mechanism", () => {
  test("is the first offered one that this node can do", async () => {
    const { ask } = build();
    expect((await ask([other("MEMIF"), mine()])).mechanism?.type).toBe("KERNEL");
  });

  test("is the one of the highest configured priority", async () => {
    const { ask } = build(["kernel"]);
    const wireguard = create(MechanismSchema, { cls: "REMOTE", type: "WIREGUARD" });
    expect((await ask([wireguard, mine()])).mechanism?.type).toBe("KERNEL");
  });

  test("none in common names what was offered and what there is", async () => {
    const { ask } = build();
    await expect(ask([other("MEMIF"), other("IPSEC")])).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      reason: "no-common-mechanism",
      message: expect.stringMatching(/MEMIF, IPSEC.*KERNEL, WIREGUARD, VXLAN/),
    });
  });
});

test("a refresh that fails keeps its reservations, a first request that fails does not", async () => {
  const { ask, recorder, dataplane } = build();
  recorder.answer = () => Promise.reject(new Error("further on"));
  await expect(ask([mine()], MANAGER, true)).rejects.toThrow("further on");
  expect(dataplane.released).toEqual([]);
  await expect(ask([mine()])).rejects.toThrow("further on");
  expect(dataplane.released).toEqual(["forwarder"]);
});
