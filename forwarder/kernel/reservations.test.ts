import { expect, test } from "vitest";
import { publicKeyOf } from "./keys.ts";
import { createReservations } from "./reservations.ts";
import type { FoundDevice } from "../wire.ts";

const ports = { first: 100, last: 103 };
const empty = { ports, found: [], foreignVnis: new Set<number>(), busyPorts: () => new Set<number>() };
const device = (wireId: string, more: Partial<FoundDevice>): FoundDevice => ({
  wireId,
  side: "client",
  binding: "",
  netns: { pid: 1, inode: 1n },
  interfaceName: "nsm",
  ifindex: 7,
  kind: "wireguard",
  ...more,
});

test("a port is a wire's until released, and rests before it is used again", () => {
  const node = createReservations({ ...empty, busyPorts: () => new Set([101]) });
  expect(node.reserveWireguard("a").port).toBe(100);
  expect(node.reserveWireguard("a")).toEqual(node.reserveWireguard("a"));
  expect(node.reserveWireguard("b").port).toBe(102);
  node.release("a");
  expect(node.reserveWireguard("c").port).toBe(103);
  expect(node.reserveWireguard("d").port).toBe(100);
  expect(() => node.reserveWireguard("e")).toThrow(
    expect.objectContaining({ code: "RESOURCE_EXHAUSTED", reason: "no-free-port" }),
  );
});

test("keys are fresh for each wire and belong together", () => {
  const node = createReservations(empty);
  const [a, b] = [node.reserveWireguard("a"), node.reserveWireguard("b")];
  expect(a.privateKey).toHaveLength(32);
  expect(a.privateKey).not.toEqual(b.privateKey);
  expect(publicKeyOf(a.privateKey)).toEqual(a.publicKey);
});

test("what an earlier life left is used again", () => {
  const privateKey = new Uint8Array(32).fill(9);
  const found = [
    device("a", { port: 102, privateKey, publicKey: publicKeyOf(privateKey) }),
    device("b", { kind: "vxlan", vni: 77, port: 4789 }),
  ];
  const node = createReservations({ ...empty, found });
  expect(node.reserveWireguard("a")).toEqual({ port: 102, privateKey, publicKey: publicKeyOf(privateKey) });
  expect([
    node.reserveWireguard("x").port,
    node.reserveWireguard("y").port,
    node.reserveWireguard("z").port,
  ]).toEqual([100, 101, 103]);
  expect(node.reserveVni("b", "even", 4789)).toBe(77);
});

test("keys that two devices claim are nobody's: one of them may be forged", () => {
  const found = [1, 2].map((byte) =>
    device("a", { port: 102, privateKey: new Uint8Array(32).fill(byte), ifindex: byte }),
  );
  const { privateKey } = createReservations({ ...empty, found }).reserveWireguard("a");
  expect(found.map((each) => each.privateKey)).not.toContainEqual(privateKey);
});

test("VNIs have the parity asked for and are no two wires'", () => {
  const node = createReservations({ ...empty, foreignVnis: new Set([7]) });
  const even = node.reserveVni("a", "even", 4789);
  const odd = node.reserveVni("b", "odd", 4789);
  expect([even % 2, odd % 2]).toEqual([0, 1]);
  for (const vni of [even, odd]) expect(vni > 0 && vni < 2 ** 24).toBe(true);
  expect(node.reserveVni("a", "even", 4789)).toBe(even);
  const taken = expect.objectContaining({ code: "ALREADY_EXISTS", reason: "vni-taken" });
  expect(() => node.keepVni("c", even)).toThrow(taken);
  expect(() => node.keepVni("c", 7)).toThrow(taken);
  node.keepVni("a", even);
  node.release("a");
  node.keepVni("c", even);
});
