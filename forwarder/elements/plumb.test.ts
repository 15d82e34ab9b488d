import { create } from "@bufbuild/protobuf";
import { statSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { MechanismSchema } from "../../api/gen/connection_pb.js";
import { ConnectionContextSchema, IPContextSchema } from "../../api/gen/connectioncontext_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import type { CallContext } from "../../sdk/chain.ts";
import type { WithEvents } from "../../sdk/elements/begin.ts";
import type { WithNextHop } from "../../sdk/elements/target.ts";
import { NsmError } from "../../sdk/errors.ts";
import { silentLogger } from "../../sdk/log.ts";
import { callBy, connectionOn, createRecorder, eventsOf, requestOn } from "../../test/support/chain.ts";
import { createFakeDataplane } from "../../test/support/dataplane.ts";
import { makePeer } from "../../test/support/peer.ts";
import { bindingOf } from "./binding.ts";
import type { WithClientEnd } from "./client-side.ts";
import { plumb } from "./plumb.ts";
import { createTunnels } from "./tunnels.ts";

const MANAGER = callBy(await makePeer("/nsmgr/node1", 1));
const own = statSync("/proc/self/ns/net", { bigint: true });
const LOCAL = { url: "unix:///proc/1/root/nse.sock" };
const REMOTE = { url: "tcp://192.0.2.2:5001" };
const clientEnd = {
  kind: "kernel",
  netns: { pid: process.pid, inode: own.ino },
  interfaceName: "nsm-1",
} as const;

type Context = CallContext & WithEvents & WithClientEnd & WithNextHop;

function build() {
  const dataplane = createFakeDataplane();
  const recorder = createRecorder<Context>();
  const tunnels = createTunnels({ dataplane, tunnelIp: "192.0.2.1", vxlanPort: 4789 });
  const service = plumb({ dataplane, tunnels, listenerOf: () => process.pid, log: silentLogger })(recorder);
  const offers: unknown[] = [];
  const answerWith = (change: (connection: Connection) => void) => {
    recorder.answer = (call) => {
      change(call.connection);
      return Promise.resolve(call.connection);
    };
  };
  const context = (nextHop: WithNextHop["nextHop"]): Context => ({
    ...eventsOf(MANAGER),
    clientEnd,
    clientMechanism: create(MechanismSchema, { cls: "LOCAL", type: "KERNEL" }),
    nextHop,
  });
  const ask = (nextHop: WithNextHop["nextHop"] = LOCAL, payload = "IP") => {
    const request = requestOn(["client", "manager", "forwarder"], ["c", "m", "f"]);
    if (request.connection !== undefined) request.connection.payload = payload;
    const asking = service.request(request, context(nextHop));
    offers.push(request.mechanismPreferences);
    return asking;
  };
  answerWith(kernelAnswer);
  return { dataplane, recorder, service, ask, answerWith, context, offers };
}

function kernelAnswer(connection: Connection): void {
  connection.mechanism = create(MechanismSchema, {
    cls: "LOCAL",
    type: "KERNEL",
    parameters: { name: "nse-1", inodeURL: `inode://${own.dev}/${own.ino}` },
  });
  if (connection.context !== undefined)
    connection.context.ipContext = {
      $typeName: "connectioncontext.IPContext",
      srcIpAddrs: ["172.16.0.1/32"],
      dstIpAddrs: ["172.16.0.0/32"],
      srcIpRequired: false,
      dstIpRequired: false,
      srcRoutes: [],
      dstRoutes: [],
      excludedPrefixes: [],
      ipNeighbors: [],
      extraPrefixRequest: [],
      extraPrefixes: [],
      policies: [],
    };
}

const wireguardAnswer = (connection: Connection) => {
  connection.mechanism = create(MechanismSchema, {
    cls: "REMOTE",
    type: "WIREGUARD",
    parameters: {
      dst_ip: "192.0.2.2",
      dst_port: "51821",
      dst_public_key: Buffer.alloc(32, 9).toString("base64"),
    },
  });
};

describe("a first request", () => {
  test("the answer names mechanism and interface of both sides in the forwarder's own segment", async () => {
    const { ask } = build();
    const metrics = (await ask()).path?.pathSegments[2]?.metrics;
    expect(metrics).toEqual({ server_interface: "KERNEL/nsm-1", client_interface: "KERNEL/nse-1" });
  });

  test("becomes a veth pair between both namespaces, bound to the ids before us", async () => {
    const { ask, dataplane } = build();
    await ask();
    expect(dataplane.applied).toMatchObject([
      {
        id: "f",
        payload: "IP",
        mtu: 9000,
        client: { ...clientEnd, binding: bindingOf(connectionOn(["c", "m", "f"], ["c", "m", "f"])) },
        endpoint: { kind: "kernel", interfaceName: "nse-1", netns: { pid: process.pid, inode: own.ino } },
        ip: { srcAddresses: ["172.16.0.1/32"], dstAddresses: ["172.16.0.0/32"] },
      },
    ]);
  });

  test("says what of its addresses and routes the client asked for, before the endpoint answered", async () => {
    const { service, context, dataplane, answerWith } = build();
    const request = requestOn(["client", "manager", "forwarder"], ["c", "m", "f"]);
    const ipContext = create(IPContextSchema, {
      srcIpAddrs: ["10.0.0.1/32"],
      dstIpAddrs: ["10.0.0.2/32"],
      srcRoutes: [{ prefix: "10.0.0.3/32" }],
      dstRoutes: [{ prefix: "10.0.0.4/32" }],
    });
    if (request.connection !== undefined)
      request.connection.context = create(ConnectionContextSchema, { ipContext });
    answerWith(kernelAnswer);
    await service.request(request, context(LOCAL));
    expect(dataplane.applied[0]?.ip.brought).toEqual(["10.0.0.1/32", "10.0.0.2/32", "10.0.0.4/32"]);
  });

  test("to another node becomes a tunnel, of the answer's other end", async () => {
    const { ask, dataplane, answerWith } = build();
    answerWith(wireguardAnswer);
    await ask(REMOTE);
    expect(dataplane.applied).toMatchObject([
      { client: clientEnd, endpoint: { kind: "wireguard", remoteIp: "192.0.2.2", remotePort: 51821 } },
    ]);
  });

  test("is refused when the other node answers a tunnel that was not offered, and closed behind us", async () => {
    const { ask, dataplane, recorder, answerWith } = build();
    answerWith((connection) => {
      connection.mechanism = create(MechanismSchema, {
        cls: "REMOTE",
        type: "VXLAN",
        parameters: { dst_ip: "192.0.2.2", dst_port: "4789", vni: "100" },
      });
    });
    await expect(ask(REMOTE)).rejects.toMatchObject({
      reason: "no-common-mechanism",
      message: expect.stringContaining("offered WIREGUARD and answered VXLAN"),
    });
    expect(dataplane.applied).toEqual([]);
    expect(recorder.calls.map(({ kind }) => kind)).toEqual(["request", "close"]);
  });

  test("that cannot be made is closed again behind us", async () => {
    const { ask, dataplane, recorder } = build();
    dataplane.failure = new NsmError("ALREADY_EXISTS", "interface-name-taken", "nsm-1 is taken");
    await expect(ask()).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
    expect(recorder.calls.map(({ kind }) => kind)).toEqual(["request", "close"]);
  });

  test.each([
    ["an endpoint that names another namespace", "inode://4/1", "netns-mismatch"],
    ["an endpoint whose inode is none", "inode://x", "bad-inode-url"],
  ])("is refused with %s", async (_, inodeURL, reason) => {
    const { ask, dataplane, answerWith } = build();
    answerWith((connection) => {
      kernelAnswer(connection);
      if (connection.mechanism !== undefined) connection.mechanism.parameters["inodeURL"] = inodeURL;
    });
    await expect(ask()).rejects.toMatchObject({ reason });
    expect(dataplane.applied).toEqual([]);
  });

  test("is refused when another node answers KERNEL, or nothing", async () => {
    const { ask, answerWith } = build();
    await expect(ask(REMOTE)).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    answerWith((connection) => delete connection.mechanism);
    await expect(ask()).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
  });
});

describe("later", () => {
  test("a refresh offers the mechanism that was agreed on", async () => {
    const { ask, recorder, answerWith } = build();
    answerWith(wireguardAnswer);
    await ask(REMOTE);
    await ask(REMOTE);
    expect(recorder.calls.map(({ connection }) => connection.mechanism?.parameters["dst_port"])).toEqual([
      undefined,
      "51821",
    ]);
  });

  test("a refresh whose wire fails closes nothing", async () => {
    const { ask, dataplane, recorder } = build();
    await ask();
    dataplane.failure = new NsmError("NOT_FOUND", "netns-gone", "gone");
    await expect(ask()).rejects.toMatchObject({ reason: "netns-gone" });
    expect(recorder.calls.map(({ kind }) => kind)).toEqual(["request", "request"]);
  });

  test("close removes the wire and closes behind it with its own mechanism", async () => {
    const { ask, dataplane, recorder, service, context } = build();
    await ask();
    await service.close(connectionOn(["c", "m", "f"], ["c", "m", "f"]), context(LOCAL));
    expect(dataplane.removed).toEqual(["f"]);
    expect(recorder.calls.at(-1)).toMatchObject({
      kind: "close",
      connection: { mechanism: { parameters: { name: "nse-1" } } },
    });
  });

  test("close removes the wire even when the endpoint cannot be reached", async () => {
    const { ask, dataplane, recorder, service, context } = build();
    await ask();
    recorder.answer = () => Promise.reject(new NsmError("UNAVAILABLE", "unreachable", "dead"));
    await expect(
      service.close(connectionOn(["c", "m", "f"], ["c", "m", "f"]), context(LOCAL)),
    ).rejects.toThrow("dead");
    expect(dataplane.removed).toEqual(["f"]);
  });

  test("after a restart a close is carried out for the claimant of the device alone", async () => {
    const { dataplane, service, context } = build();
    const connection = connectionOn(["c", "m", "f"], ["c", "m", "f"]);
    const device = {
      wireId: "f",
      side: "client",
      netns: clientEnd.netns,
      interfaceName: "nsm-1",
      ifindex: 7,
      kind: "veth",
    } as const;
    dataplane.devices = [{ ...device, binding: "somebody else's" }];
    await expect(service.close(connection, context(LOCAL))).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
    });
    expect(dataplane.removed).toEqual([]);
    dataplane.devices = [{ ...device, binding: bindingOf(connection) }];
    await service.close(connection, context(LOCAL));
    expect(dataplane.removed).toEqual(["f"]);
  });
});

test("the binding changes with any id before us, and not with our own or later ones", () => {
  const of = (...ids: string[]) => bindingOf(connectionOn(["a", "b", "c"].slice(0, ids.length), ids));
  expect(of("1", "2", "3")).toBe(of("1", "2", "other"));
  expect(of("1", "2", "3")).not.toBe(of("1", "x", "3"));
  expect(of("1", "2", "3")).not.toBe(of("x", "2", "3"));
  expect(of("12", "", "3")).not.toBe(of("1", "2", "3"));
});
