//  [nsc] nsm-c                          nsm-e [nse]       the devices are in the pods,
//          :                              :               their UDP sockets in the nodes
//       [node 1] u0 10.9.0.1 ==== 10.9.0.2 u0 [node 2]
/** Two nodes and a pod on each, and the two halves of a WireGuard wire between the pods. */
import { deepStrictEqual } from "node:assert/strict";
import { execFileSync } from "node:child_process";
import type { Wire } from "../../../forwarder/dataplane.ts";
import { createNamespace, eventually, joinNamespaces } from "../../support/netns.ts";
import type { Namespace } from "../../support/netns.ts";
import { kernelSide, wireOf, wireguardSide } from "../../support/node.ts";
import { reaches } from "../../support/udp.ts";
import { startNode } from "./node.ts";
import type { Node, WireguardKeys } from "./node.ts";

export interface World extends AsyncDisposable {
  readonly node1: Namespace;
  readonly node2: Namespace;
  readonly nsc: Namespace;
  readonly nse: Namespace;
  /** The data planes of the nodes; a test that restarts one puts the new one here. */
  one: Node;
  two: Node;
  /** Removes the wires of a test. Throws when anything of them is left. */
  clear(): Promise<void>;
}

/** Opens it with nothing but the nodes; disposal ends all of it. */
export async function openWorld(): Promise<World> {
  await using guard = new AsyncDisposableStack();
  const stack = guard.use(new AsyncDisposableStack());
  const create = (label: string) => stack.use(createNamespace(label));
  const spaces = { node1: create("n1"), node2: create("n2"), nsc: create("nsc"), nse: create("nse") };
  const all = Object.values(spaces);
  await joinNamespaces(spaces.node1, spaces.node2);
  const [one, two] = await Promise.all([startNode(spaces.node1), startNode(spaces.node2)]);
  const before = all.map(inventory);
  const world: World = {
    ...spaces,
    one,
    two,
    async clear() {
      for (const wireId of WIRES) await Promise.all([world.one.remove(wireId), world.two.remove(wireId)]);
      await eventually("UDP sockets are closed", () => all.every((ns) => udpSockets(ns).length === 0));
      deepStrictEqual(all.map(inventory), before);
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
  stack.defer(async () => {
    await Promise.all([world.one.kill(), world.two.kill()]);
  });
  guard.move();
  return world;
}

/** Ids that tests give to their wires. */
const WIRES = ["w1", "w2"];

/** Links, addresses, routes and rules of a namespace and what is filtered there, a line each. */
function inventory(ns: Namespace): string[] {
  // Busybox's shell would take its own `ip`.
  const script = `
    ip=/usr/local/bin/ip
    printf 'link\\naddr\\nroute show table all\\nrule\\nneigh show nud permanent\\n' | $ip -o -batch -
    printf 'route show table all\\nrule\\n' | $ip -o -6 -batch -
    nft list ruleset`;
  return ns
    .exec("sh", "-c", script)
    .replaceAll(/ (expires|pref) \S+/g, "")
    .split("\n");
}

/** Ports of the UDP sockets of a namespace, the kernel's own included. */
export function udpSockets(ns: Namespace): number[] {
  const tables = ns.exec("cat", "/proc/net/udp", "/proc/net/udp6");
  return [...tables.matchAll(/^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) /gm)].map(([, port = ""]) =>
    Number.parseInt(port, 16),
  );
}

/** What `wg` says of a device, line by line of fields: the device, then its peers. */
export function showWireguard(ns: Namespace, device: string) {
  const [own = [], ...peers] = ns
    .exec("wg", "show", device, "dump")
    .trim()
    .split("\n")
    .map((line) => line.split("\t"));
  return {
    privateKey: own[0],
    publicKey: own[1],
    port: Number(own[2]),
    peers: peers.map(([publicKey, , endpoint, allowedIps, handshake, , , keepalive]) => ({
      publicKey,
      endpoint,
      allowedIps,
      lastHandshake: Number(handshake),
      keepalive,
    })),
  };
}

/** Of both ends of a wire, in both families. */
export const ADDRESSES = {
  srcAddresses: ["172.16.1.1/32", "fd00::1/128"],
  dstAddresses: ["172.16.1.2/32", "fd00::2/128"],
} as const;

/** Both halves of one wire with addresses of both families. `v6`: the nodes reach each other by IPv6. */
export function wiresOf(world: World, keys1: WireguardKeys, keys2: WireguardKeys, v6 = false): [Wire, Wire] {
  const more = { mtu: 1420, ip: { ...ADDRESSES, srcRoutes: [{ prefix: "10.0.0.0/8" }] } };
  return [
    wireOf("w1", kernelSide(world.nsc, "nsm-c"), wireguardSide(1, keys1, keys2, v6), more),
    wireOf("w2", wireguardSide(2, keys2, keys1, v6), kernelSide(world.nse, "nsm-e"), more),
  ];
}

/** Makes the wire and sees it carry. */
export async function makeWire(
  world: World,
  v6 = false,
): Promise<{ keys: [WireguardKeys, WireguardKeys]; wires: [Wire, Wire] }> {
  const keys: [WireguardKeys, WireguardKeys] = [
    await world.one.reserveWireguard("w1"),
    await world.two.reserveWireguard("w2"),
  ];
  const wires = wiresOf(world, ...keys, v6);
  await world.two.apply(wires[1]);
  await world.one.apply(wires[0]);
  if (!(await carries(world))) throw new Error("the new wire carries nothing");
  return { keys, wires };
}

export const carries = ({ nsc, nse }: World) => reaches(nsc, "172.16.1.1", nse, "172.16.1.2");
export const carriesIpv6 = ({ nsc, nse }: World) => reaches(nsc, "fd00::1", nse, "fd00::2");

/** Sets the machine's clock, which all its nodes share. Timers of programs don't notice. */
export function shiftClock(seconds: number): void {
  execFileSync("date", ["-s", `@${Math.round(Date.now() / 1000) + seconds}`]);
}
