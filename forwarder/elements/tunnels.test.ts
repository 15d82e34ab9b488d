import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { ConnectionSchema, MechanismSchema } from "../../api/gen/connection_pb.js";
import { createFakeDataplane } from "../../test/support/dataplane.ts";
import type { Dataplane } from "../dataplane.ts";
import { createTunnels } from "./tunnels.ts";

const KEY = Buffer.alloc(32, 7).toString("base64");

function build(overrides: Partial<Dataplane> = {}) {
  const dataplane = createFakeDataplane(overrides);
  return { dataplane, tunnels: createTunnels({ dataplane, tunnelIp: "192.0.2.1", vxlanPort: 4789 }) };
}

const connection = (mtu = 0) => create(ConnectionSchema, { id: "wire", context: { MTU: mtu } });
const wireguard = (parameters: Record<string, string> = {}) =>
  create(MechanismSchema, {
    cls: "REMOTE",
    type: "WIREGUARD",
    parameters: { src_ip: "192.0.2.9", src_port: "51820", src_public_key: KEY, MTU: "1440", ...parameters },
  });
const vxlan = (parameters: Record<string, string> = {}) =>
  create(MechanismSchema, {
    cls: "REMOTE",
    type: "VXLAN",
    parameters: { src_ip: "192.0.2.9", src_port: "4789", MTU: "1446", ...parameters },
  });

test("a node's address for other domains is said beside its own, to the proxy", async () => {
  const dataplane = createFakeDataplane();
  const tunnels = createTunnels({
    dataplane,
    tunnelIp: "192.0.2.1",
    externalIp: "203.0.113.1",
    vxlanPort: 4789,
  });
  const offer = await tunnels.offer("wire", "IP", "tcp://192.0.2.2:5001");
  expect(offer.parameters).toMatchObject({ src_ip: "192.0.2.1", src_external_ip: "203.0.113.1" });
  const served = wireguard();
  await tunnels.serve(served, connection());
  expect(served.parameters).toMatchObject({ dst_ip: "192.0.2.1", dst_external_ip: "203.0.113.1" });
  const others = wireguard({ dst_external_ip: "192.0.2.66" });
  await build().tunnels.serve(others, connection());
  expect(others.parameters).not.toHaveProperty("dst_external_ip");
});

describe("serving", () => {
  test("a WireGuard wire adds our end and keeps the smaller MTU", async () => {
    const { tunnels } = build();
    const [mechanism, wire] = [wireguard({ MTU: "1300" }), connection(9000)];
    const end = await tunnels.serve(mechanism, wire);
    expect(mechanism.parameters).toMatchObject({
      dst_ip: "192.0.2.1",
      dst_port: "51820",
      dst_public_key: Buffer.alloc(32, 2).toString("base64"),
      MTU: "1300",
    });
    expect(wire.context?.MTU).toBe(1300);
    expect(end).toMatchObject({
      kind: "wireguard",
      remoteIp: "192.0.2.9",
      remotePort: 51820,
    });
  });

  test("our own MTU holds where it is smaller, for both families of the underlay", async () => {
    const { tunnels } = build();
    const wire = connection();
    await tunnels.serve(wireguard({ MTU: "9000" }), wire);
    expect(wire.context?.MTU).toBe(1440);
    await tunnels.serve(wireguard({ MTU: "9000", src_ip: "2001:db8::9" }), wire);
    expect(wire.context?.MTU).toBe(1420);
  });

  test("a VXLAN wire gets a number of the right parity, and keeps the one it has", async () => {
    const { tunnels } = build();
    const odd = vxlan();
    await tunnels.serve(odd, connection());
    expect(odd.parameters["vni"]).toBe("101"); // 192.0.2.9 is above 192.0.2.1
    const even = vxlan({ src_ip: "192.0.2.0" });
    await tunnels.serve(even, connection());
    expect(even.parameters["vni"]).toBe("100");
    const kept = vxlan({ vni: "77" });
    expect(await tunnels.serve(kept, connection())).toMatchObject({ vni: 77, port: 4789 });
  });

  test.each([
    [wireguard({ src_ip: "not an address" }), "src_ip"],
    [wireguard({ src_ip: "" }), "src_ip"],
    [wireguard({ src_port: "0" }), "src_port"],
    [wireguard({ src_port: "65536" }), "src_port"],
    [wireguard({ src_public_key: "c2hvcnQ=" }), "src_public_key"],
    [wireguard({ src_public_key: `${KEY}\n` }), "src_public_key"],
    [vxlan({ vni: "16777216" }), "vni"],
    [vxlan({ vni: "-1" }), "vni"],
  ])("refuses a bad parameter by its name (%#)", async (mechanism, name) => {
    const { tunnels } = build();
    await expect(tunnels.serve(mechanism, connection())).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining(name),
    });
  });
});

describe("asking", () => {
  test("offers what fits the payload", async () => {
    const { tunnels } = build();
    expect(await tunnels.offer("wire", "IP", "tcp://192.0.2.2:5001")).toMatchObject({
      cls: "REMOTE",
      type: "WIREGUARD",
      parameters: { src_ip: "192.0.2.1", src_port: "51820", MTU: "1440" },
    });
    expect(await tunnels.offer("wire", "ETHERNET", "tcp://192.0.2.2:5001")).toMatchObject({
      type: "VXLAN",
      parameters: { src_ip: "192.0.2.1", src_port: "4789", MTU: "1446" },
    });
  });

  test("says what is missing on this node, and how to get it", async () => {
    const missing = { mode: "none", reason: "no WireGuard here", remedy: "install wireguard-go" } as const;
    const { tunnels } = build({ wireguard: missing });
    await expect(tunnels.offer("wire", "IP", "tcp://192.0.2.2:5001")).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringMatching(/no WireGuard here.*install wireguard-go/),
    });
    expect(tunnels.list()).toEqual(["KERNEL", "VXLAN"]);
    expect(tunnels.can("WIREGUARD")).toBe(false);
    expect(tunnels.can("MEMIF")).toBe(false);
  });

  test("takes the other end from the answer, and speaks first", () => {
    const { tunnels } = build();
    const answer = wireguard({ dst_ip: "192.0.2.2", dst_port: "51999", dst_public_key: KEY });
    expect(tunnels.accept("wire", answer)).toMatchObject({
      kind: "wireguard",
      remoteIp: "192.0.2.2",
      remotePort: 51999,
      localPort: 51820,
    });
    expect(tunnels.accept("wire", vxlan({ dst_ip: "192.0.2.2", vni: "6" }))).toMatchObject({
      kind: "vxlan",
      remoteIp: "192.0.2.2",
      vni: 6,
    });
  });

  test("an answer without the other end is refused", () => {
    const { tunnels } = build();
    expect(() => tunnels.accept("wire", wireguard())).toThrow(
      expect.objectContaining({ code: "INVALID_ARGUMENT" }),
    );
    expect(() => tunnels.accept("wire", vxlan({ dst_ip: "192.0.2.2" }))).toThrow(
      expect.objectContaining({ code: "INVALID_ARGUMENT" }),
    );
  });
});
