import { create } from "@bufbuild/protobuf";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, expect, test } from "vitest";
import { MechanismSchema } from "../../api/gen/connection_pb.js";
import type { CallContext } from "../../sdk/chain.ts";
import type { WithEvents } from "../../sdk/elements/begin.ts";
import { silentLogger } from "../../sdk/log.ts";
import { callBy, createRecorder, eventsOf, requestOn } from "../../test/support/chain.ts";
import { makePeer } from "../../test/support/peer.ts";
import { createFakeDataplane } from "../../test/support/dataplane.ts";
import type { ClientEnd, WithClientEnd } from "./client-side.ts";
import { takeOver } from "./take-over.ts";

const MANAGER = callBy(await makePeer("/nsmgr/node1", 1));

async function endedProcess(): Promise<{ pid: number; end: () => Promise<void> }> {
  const child = spawn("sleep", ["60"]);
  await once(child, "spawn");
  const end = async () => {
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  return { pid: child.pid ?? 0, end };
}

interface Asked {
  readonly wire: string;
  readonly pid: number;
  readonly inode?: bigint;
  readonly interfaceName?: string;
  readonly label?: string;
  readonly subject?: string;
}

function build() {
  const closed: string[] = [];
  const recorder = createRecorder<CallContext & WithEvents & WithClientEnd>();
  const dataplane = createFakeDataplane();
  const service = takeOver(dataplane, silentLogger)(recorder);
  const token = (subject: string) =>
    ["{}", JSON.stringify({ sub: subject }), "x"]
      .map((part) => Buffer.from(part).toString("base64url"))
      .join(".");
  const ask = async (asked: Asked, established = false) => {
    const { wire, pid, inode = 1n, interfaceName = "nsm-1", label = "client-0" } = asked;
    const request = requestOn(["client", "manager", "forwarder"], [label, `manager-${wire}`, wire]);
    const [client] = request.connection?.path?.pathSegments ?? [];
    if (client !== undefined) client.token = token(asked.subject ?? "spiffe://example.org/client");
    await service.request(request, {
      ...eventsOf(MANAGER, {
        established,
        events: {
          close: (why) => {
            closed.push(wire);
            expect(why).toMatch("ended");
            return Promise.resolve();
          },
        },
      }),
      clientEnd: { kind: "kernel", netns: { pid, inode }, interfaceName },
      clientMechanism: create(MechanismSchema),
    });
  };
  /** What the element handed on. */
  let handedOn: ClientEnd | undefined;
  recorder.answer = ({ connection }, { clientEnd }) => {
    handedOn = clientEnd;
    return Promise.resolve(connection);
  };
  return { ask, closed, recorder, dataplane, handedOn: () => handedOn };
}

describe("the wire of a dead process", () => {
  test("is closed for another process of the same client, before anybody is asked for the new one", async () => {
    const { ask, closed, recorder } = build();
    const { pid, end } = await endedProcess();
    await ask({ wire: "old", pid });
    await end();
    recorder.answer = ({ connection }) => {
      expect(closed).toEqual(["old"]);
      return Promise.resolve(connection);
    };
    await ask({ wire: "new", pid: process.pid });
    expect(recorder.calls).toHaveLength(2);
  });

  test.each([
    ["the interface alone is the same", { label: "client-7" }, ["old"]],
    ["the client's id alone is the same", { interfaceName: "nsm-7" }, ["old"]],
    ["both are others", { label: "client-7", interfaceName: "nsm-7" }, []],
    ["the namespace is another one", { inode: 2n }, []],
    ["somebody else asks", { subject: "spiffe://example.org/mallory" }, []],
  ] as const)("when %s", async (_, changes, expected) => {
    const { ask, closed } = build();
    const { pid, end } = await endedProcess();
    await ask({ wire: "old", pid });
    await end();
    await ask({ wire: "new", pid: process.pid, ...changes });
    expect(closed).toEqual(expected);
  });

  test("is not touched by a refresh", async () => {
    const { ask, closed } = build();
    const { pid, end } = await endedProcess();
    await ask({ wire: "old", pid });
    await ask({ wire: "new", pid: process.pid });
    await end();
    await ask({ wire: "new", pid: process.pid }, true);
    expect(closed).toEqual([]);
  });
});

test("the wire of a process that lives is nobody else's", async () => {
  const { ask, closed } = build();
  await ask({ wire: "old", pid: process.pid });
  await ask({ wire: "new", pid: process.pid });
  expect(closed).toEqual([]);
});

describe("an interface that a dead process left before the forwarder was restarted", () => {
  async function buildLeft() {
    const before = build();
    const { pid, end } = await endedProcess();
    await before.ask({ wire: "old", pid });
    const clientEnd = before.handedOn();
    if (clientEnd?.kind !== "kernel") throw new Error("nobody has asked");
    const { netns, interfaceName, owner = "" } = clientEnd;
    const after = build();
    const left = { wireId: "old", side: "client", binding: "b", ifindex: 7, kind: "veth" } as const;
    after.dataplane.devices.push({ ...left, netns, interfaceName, owner });
    return { ...after, end, removed: after.dataplane.removed };
  }

  test("is removed for another process of the same client, before anybody is asked for the new wire", async () => {
    const { ask, end, removed, recorder } = await buildLeft();
    await end();
    recorder.answer = ({ connection }) => {
      expect(removed).toEqual(["old"]);
      return Promise.resolve(connection);
    };
    await ask({ wire: "new", pid: process.pid });
    expect(removed).toEqual(["old"]);
  });

  test.each([
    ["another interface is asked for", { interfaceName: "nsm-7" }],
    ["it is in another namespace", { inode: 2n }],
    ["somebody else asks", { subject: "spiffe://example.org/mallory" }],
  ] as const)("is left when %s", async (_, changes) => {
    const { ask, end, removed } = await buildLeft();
    await end();
    await ask({ wire: "new", pid: process.pid, ...changes });
    expect(removed).toEqual([]);
  });

  test("is left while that process lives, which is about to ask for it", async () => {
    const { ask, end, removed } = await buildLeft();
    await ask({ wire: "new", pid: process.pid });
    expect(removed).toEqual([]);
    await end();
  });
});
