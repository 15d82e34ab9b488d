import { create } from "@bufbuild/protobuf";
import { statSync } from "node:fs";
import { expect, test } from "vitest";
import { MechanismSchema } from "../../api/gen/connection_pb.js";
import { callBy, connectionOn } from "../../test/support/chain.ts";
import { makePeer } from "../../test/support/peer.ts";
import { startSleeper } from "../../test/support/sleeper.ts";
import { createClientNamespaces } from "./client-namespaces.ts";
import type { FoundDevice } from "../dataplane.ts";

const MANAGER = callBy(await makePeer("/nsmgr/node1", 1));
const own = statSync("/proc/self/ns/net", { bigint: true }).ino;

/** Calls for wire `w` in the name of this very process. */
function build(found: readonly Pick<FoundDevice, "side" | "netns">[] = []) {
  /** How often the namespace of our inode has ended and another one has got its number. */
  const ended = { times: 0 };
  const namespaces = createClientNamespaces(
    { found: () => found },
    () => true,
    (ref) => ({ ...ref, identity: `${ended.times} ${ref.inode}` }),
  );
  const call = (parameters: Record<string, string> = { peerPID: String(process.pid) }) => {
    const connection = connectionOn(["client", "manager", "w"]);
    connection.mechanism = create(MechanismSchema, { cls: "LOCAL", type: "KERNEL", parameters });
    namespaces.refuseStranger(connection, MANAGER);
    return "passed";
  };
  return { namespaces, call, ended };
}
const refusal = expect.objectContaining({ code: "PERMISSION_DENIED", reason: "foreign-connection" });

test("a wire that nobody has made is anybody's", () => {
  expect(build().call()).toBe("passed");
});

test("a wire belongs to the namespace that it was made for, until it is closed", () => {
  const { namespaces, call } = build();
  namespaces.keep("w", { pid: process.pid, inode: own });
  expect(call()).toBe("passed");
  namespaces.keep("w", { pid: process.pid, inode: own + 1n });
  expect(call).toThrow(refusal);
  namespaces.drop("w");
  expect(call()).toBe("passed");
});

test("a namespace that got the number of one that ended has none of its wires", () => {
  const { namespaces, call, ended } = build();
  namespaces.keep("w", { pid: 1, inode: own });
  expect(call()).toBe("passed");
  ended.times++;
  expect(call).toThrow(refusal);
  const adopted = build([{ side: "client", netns: { pid: 1, inode: own, identity: `0 ${own}` } }]);
  expect(adopted.call()).toBe("passed");
  adopted.ended.times++;
  expect(adopted.call).toThrow(refusal);
});

test("a wire of an earlier life belongs to the namespace of its client's device", () => {
  const at = (side: "client" | "endpoint", inode: bigint) => ({ side, netns: { pid: 1, inode } });
  expect(build([at("client", own), at("endpoint", own + 1n)]).call()).toBe("passed");
  expect(build([at("endpoint", own), at("client", own + 1n)]).call).toThrow(refusal);
});

test("the process that asked for a wire may have ended when its Close arrives, and no other", async () => {
  const { namespaces, call } = build();
  using client = await startSleeper();
  using other = await startSleeper();
  namespaces.keep("w", { pid: client.pid, inode: own });
  await Promise.all([client.kill(), other.kill()]);
  expect(call({ peerPID: String(client.pid) })).toBe("passed");
  expect(() => call({ peerPID: String(other.pid) })).toThrow(
    expect.objectContaining({ code: "NOT_FOUND", reason: "netns-gone" }),
  );
});

test("what the manager decides by itself names no process and passes", () => {
  const { namespaces, call } = build();
  namespaces.keep("w", { pid: process.pid, inode: own + 1n });
  expect(call({})).toBe("passed");
});
