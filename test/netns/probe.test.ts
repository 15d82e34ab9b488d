/** The prober of cli/probe on devices that are made by hand: what it says of a link that is whole, broken, or goes elsewhere. */
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { startProber, startReflector } from "../../cli/probe/start.ts";
import { delay } from "../../sdk/clock.ts";
import { createNamespace } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";

const NEVER = AbortSignal.timeout(50_000);
const within = (ns: Namespace) => ({ netns: `/run/netns/${ns.name}` });

async function reflect(name: string, ns: Namespace, family: 4 | 6 = 4): Promise<void> {
  const reflector = await startReflector(name, { ...within(ns), family });
  onTestFinished(() => reflector.kill());
}

function macOf(ns: Namespace, device: string): string {
  return /link\/ether (\S+)/.exec(ns.ip(`link show ${device}`))?.[1] ?? "";
}

let sender: Namespace;
let one: Namespace;
let two: Namespace;
beforeAll(() => {
  [sender, one, two] = [createNamespace("sender"), createNamespace("one"), createNamespace("two")];
  for (const [i, ns] of [one, two].entries()) {
    sender.ip(`link add p${i} type veth peer name p netns ${ns.name}`);
    sender.ip(`addr add 10.0.0.${i + 1}/32 dev p${i}`);
    sender.ip(`link set p${i} up`);
    ns.ip("addr add 10.0.0.9/24 dev p");
    ns.ip("addr add fd00::9/64 dev p nodad");
    ns.ip("link set p up");
  }
  sender.ip("addr add fd00::1/64 dev p0 nodad");
  sender.ip("route add 10.0.0.9/32 dev p0");
});
afterAll(async () => {
  for (const ns of [sender, one, two]) await ns.kill();
});

test.for(["10.0.0.9", "fd00::9"])("a bare veth loses nothing: %s", async (address) => {
  await reflect("one", one, address.includes(":") ? 6 : 4);
  {
    await using first = await startProber(address, within(sender)); // the neighbours find one another
    await first.waitFor(() => true, NEVER);
  }
  await using prober = await startProber(address, within(sender));
  await prober.waitFor(() => true, NEVER);
  await delay(500);
  const report = await prober.stop();
  expect(report).toMatchObject({ lost: 0, received: report.sent });
  expect(report.sent).toBeGreaterThanOrEqual(500);
});

test("a link that is down for a while is a gap as long, and so many probes are lost", async () => {
  await reflect("one", one);
  await using prober = await startProber("10.0.0.9", within(sender));
  await prober.waitFor(() => true, NEVER);
  // Neighbours that have to be looked for again hold packets back, and are asked for once a second.
  sender.ip(`neigh replace 10.0.0.9 lladdr ${macOf(one, "p")} dev p0 nud permanent`);
  one.ip("link set p down");
  const start = performance.now();
  await delay(400);
  one.ip("link set p up");
  one.ip(`neigh replace 10.0.0.1 lladdr ${macOf(sender, "p0")} dev p nud permanent`);
  const downMs = performance.now() - start;
  await delay(1500);
  const { gapMs, lost, received } = await prober.stop();
  sender.ip("neigh del 10.0.0.9 dev p0");
  expect(received).toBeGreaterThan(0);
  expect(gapMs).toBeGreaterThanOrEqual(400);
  expect(lost).toBeGreaterThanOrEqual(390);
  // Both are about the same: a thousand probes a second, whatever the machine does.
  expect(Math.abs(lost - gapMs)).toBeLessThan(0.3 * downMs);
});

test("a route that changes goes to the other reflector, which is said at once", async () => {
  await reflect("one", one);
  await reflect("two", two);
  await using prober = await startProber("10.0.0.9", within(sender));
  const { atMs } = await prober.waitFor(({ from }) => from === "one", NEVER);
  sender.ip("route replace 10.0.0.9/32 dev p1");
  const second = await prober.waitFor(({ from }) => from === "two", NEVER);
  expect(second.atMs).toBeGreaterThan(atMs);
  await delay(50);
  const { from } = await prober.stop();
  expect(Object.keys(from)).toEqual(["one", "two"]);
  expect(from["one"]?.lastMs).toBeLessThan(from["two"]?.lastMs ?? 0);
});

test("a prober whose process ends says so to whoever waits", async () => {
  const prober = await startProber("10.0.0.77", within(sender));
  const waiting = prober.waitFor(() => true, NEVER);
  await prober[Symbol.asyncDispose]();
  await expect(waiting).rejects.toMatchObject({ reason: "probe-ended" });
  await expect(prober.stop()).rejects.toMatchObject({ reason: "probe-ended" });
});

test("a namespace that does not exist is named", async () => {
  await expect(startReflector("one", { netns: "/run/netns/nowhere" })).rejects.toThrow(/nowhere/);
});
