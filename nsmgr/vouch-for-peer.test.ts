import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { MechanismSchema } from "../api/gen/connection_pb.js";
import { callBy, createRecorder, eventsOf, requestOn } from "../test/support/chain.ts";
import { makePeer } from "../test/support/peer.ts";
import { vouchForPeer } from "./vouch-for-peer.ts";

const LOCAL = callBy(await makePeer("/nsc/a", 4711));
const REMOTE = callBy(await makePeer("/forwarder/node2"));

/** What a forwarder behind the manager is told. */
async function toldOf(ctx: typeof LOCAL, cls: string, type: string, parameters: Record<string, string>) {
  const recorder = createRecorder();
  let told: Record<string, string> | undefined;
  recorder.answer = ({ connection }) => Promise.resolve(connection);
  const service = vouchForPeer((id) => id.endsWith("/forwarder/node2"))({
    ...recorder,
    request(request, own) {
      told = { ...request.mechanismPreferences[0]?.parameters };
      return recorder.request(request, own);
    },
  });
  const request = requestOn(["client", "manager"]);
  request.mechanismPreferences = [create(MechanismSchema, { cls, type, parameters })];
  await service.request(request, eventsOf(ctx));
  return told;
}

test("a client's pid is the one of its socket, whatever it wrote", async () => {
  expect(await toldOf(LOCAL, "LOCAL", "KERNEL", {})).toEqual({ peerPID: "4711" });
  expect(await toldOf(LOCAL, "LOCAL", "KERNEL", { peerPID: "1", name: "a" })).toEqual({
    peerPID: "4711",
    name: "a",
  });
});

test("who is no process of this node gets none, and never silence: that would be the word of a manager that does not vouch", async () => {
  expect(await toldOf(REMOTE, "LOCAL", "KERNEL", { inodeURL: "inode://4/1" })).toMatchObject({
    peerPID: "0",
  });
  expect(await toldOf(REMOTE, "REMOTE", "KERNEL", { inodeURL: "inode://4/1" })).toMatchObject({
    peerPID: "0",
  });
  expect(await toldOf(REMOTE, "REMOTE", "KERNEL", { peerPID: "1" })).toEqual({ peerPID: "0" });
  expect(await toldOf(REMOTE, "REMOTE", "VXLAN", { peerPID: "1", src_ip: "192.0.2.1" })).toEqual({
    src_ip: "192.0.2.1",
  });
});
