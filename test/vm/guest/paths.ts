/** A WireGuard wire while the way between its nodes is cut, translated, or leads elsewhere. */
import { equal, ok } from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { Namespace } from "../../support/netns.ts";
import { probe, startEcho } from "../../support/udp.ts";
import { createSuite, note } from "./harness.ts";
import { startNode } from "./node.ts";
import { makeWire, showWireguard, wiresOf } from "./world.ts";
import type { World } from "./world.ts";

const { test, tests } = createSuite();
export { tests as pathTests };

const [SRC, DST] = ["172.16.1.1", "172.16.1.2"];
/** WireGuard by itself tries again after five seconds. */
const AT_ONCE_MS = 1500;

/** Shorter and longer than a session, whose last 60 s are there for renewing it. */
for (const seconds of [10, 70, 300])
  test(`a wire goes on within a second after the way was cut for ${seconds} s`, async (world) => {
    await makeWire(world);
    // A session of some age, so that it ends at another moment of each cut.
    await sleep(50_000);
    cut(world.node1);
    await sleep(seconds * 1000);
    mend(world.node1);
    const tookMs = await untilCarries(world);
    note(`it went on after ${Math.round(tookMs)} ms`);
    ok(tookMs < AT_ONCE_MS, `after ${tookMs} ms`);
    // And stays so.
    await sleep(20_000);
    equal(await probes(world, 20), 20);
  });

test("a node that nobody can dial opens the way itself, and is found there by a forwarder that starts again", async (world) => {
  const { node2, one, two, nsc } = world;
  hide(node2);
  const keys = [await one.reserveWireguard("w1"), await two.reserveWireguard("w2")] as const;
  const [wire1, wire2] = wiresOf(world, ...keys);
  await two.apply(wire2);
  await sleep(100);
  await one.apply(wire1);
  const tookMs = await untilCarries(world);
  note(`it was open after ${Math.round(tookMs)} ms`);
  ok(tookMs < AT_ONCE_MS, `after ${tookMs} ms`);
  const learned = showWireguard(nsc, "nsm-c").peers[0]?.endpoint;
  ok(learned !== `10.9.0.2:${keys[1].port}`, `the peer is at ${learned}`);
  await world.one.kill();
  world.one = await startNode(world.node1);
  await world.one.apply(wire1);
  await world.one.apply({ ...wire1, mtu: 1400 });
  equal(showWireguard(nsc, "nsm-c").peers[0]?.endpoint, learned);
  equal(await probes(world, 20), 20);
  unhide(node2);
});

for (const [who, from, to] of [
  ["asking", "10.9.0.1", "10.9.0.3"],
  ["serving", "10.9.0.2", "10.9.0.4"],
] as const)
  test(`a wire goes on within a second when the ${who} node changes its address`, async (world) => {
    const node = who === "asking" ? world.node1 : world.node2;
    await makeWire(world);
    const move = async (away: string, here: string) => {
      // The other way round the new one would go with the old one, as its secondary.
      node.ip(`addr del ${away}/24 dev u0`);
      node.ip(`addr add ${here}/24 dev u0`);
      const tookMs = await untilCarries(world);
      note(`it went on after ${Math.round(tookMs)} ms`);
      ok(tookMs < AT_ONCE_MS, `after ${tookMs} ms`);
      await sleep(5000);
    };
    await move(from, to);
    await move(to, from);
  });

test("a peer that a Request says to be elsewhere is asked there at once, within its session", async (world) => {
  const { nsc, one, node2 } = world;
  const { keys, wires } = await makeWire(world);
  const before = showWireguard(nsc, "nsm-c").peers[0];
  const [wire1] = wires;
  if (wire1.endpoint.kind !== "wireguard") throw new Error("no tunnel");
  node2.ip("addr add 10.9.0.4/24 dev u0");
  await one.apply({ ...wire1, endpoint: { ...wire1.endpoint, remoteIp: "10.9.0.4" } });
  const after = showWireguard(nsc, "nsm-c").peers[0];
  equal(after?.endpoint, `10.9.0.4:${keys[1].port}`);
  equal(after?.lastHandshake, before?.lastHandshake);
  equal(await probes(world, 5), 5);
  await one.apply(wire1);
  node2.ip("addr del 10.9.0.4/24 dev u0");
  equal(await probes(world, 5), 5);
});

function cut(node: Namespace): void {
  nft(node, "add table inet cut");
  for (const hook of ["input", "output"])
    nft(node, `add chain inet cut ${hook}s { type filter hook ${hook} priority 0; policy drop; }`);
}

function mend(node: Namespace): void {
  nft(node, "delete table inet cut");
}

/** As behind a gateway that masquerades: its packets come from other ports, and only what answers them comes in. */
function hide(node: Namespace): void {
  nft(node, "add table ip gate");
  nft(node, "add chain ip gate after { type nat hook postrouting priority 100; }");
  nft(node, "add rule ip gate after ip protocol udp masquerade to :30000-40000");
  nft(node, "add chain ip gate before { type filter hook input priority 0; }");
  nft(node, "add rule ip gate before ip protocol udp ct state new drop");
}

function unhide(node: Namespace): void {
  nft(node, "delete table ip gate");
}

function nft(ns: Namespace, command: string): void {
  ns.exec("nft", command);
}

/** Milliseconds until a packet comes back. */
async function untilCarries({ nsc, nse }: World): Promise<number> {
  using echo = startEcho(nse, DST);
  const startMs = performance.now();
  while ((await probe(nsc, SRC, DST, echo.port, { count: 1, timeoutMs: 100 })) === 0)
    if (performance.now() - startMs > 60_000) throw new Error("nothing comes back in a minute");
  return performance.now() - startMs;
}

/** How many came back. */
async function probes({ nsc, nse }: World, count: number): Promise<number> {
  using echo = startEcho(nse, DST);
  return await probe(nsc, SRC, DST, echo.port, { count });
}
