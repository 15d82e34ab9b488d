/** The demo's scenarios, each alone, and on machines that cannot have all of their wires. */
import { beforeAll, expect, test } from "vitest";
import { Demo, Document, WITHOUT_TUN, wiresOf } from "../support/demo.ts";
import { expectNothingLeft, takeInventory } from "../support/inventory.ts";
import type { Inventory } from "../support/inventory.ts";

let before: Inventory;
beforeAll(async () => {
  before = await takeInventory();
});

test("scenario clusters alone reaches the other cluster over WireGuard, and a gateway there through a firewall here", async () => {
  const demo = new Demo(["--scenario", "clusters", "--output", "json"]);
  expect(await demo.ended(), demo.stderr).toBe(0);
  const { scenarios, wires, firstPingMs, firstPingBetweenClustersMs } = Document.parse(
    JSON.parse(demo.stdout),
  );
  expect(Object.keys(scenarios)).toEqual(["clusters"]);
  expect(wires).toMatchObject([
    { client: "web-client", endpoint: "web-1@west", mechanism: "WIREGUARD" },
    { client: "edge-client", endpoint: "edge-firewall" },
  ]);
  expect(wiresOf(wires, "edge-client")[0]?.path.filter((name) => /^(edge|proxy)-/.test(name))).toEqual([
    "edge-client",
    "edge-firewall",
    "proxy-east",
    "proxy-west",
    "edge-gateway",
  ]);
  expect(firstPingBetweenClustersMs).toBe(firstPingMs);
  expect(demo.stderr).toContain("port 8080 passes, port 80 does not");
  await expectNothingLeft(before);
});

test("scenario failover alone moves a client to its backup when the other cluster is cut off, and back again", async () => {
  const demo = new Demo(["--scenario", "failover", "--output", "json"]);
  expect(await demo.ended(), demo.stderr).toBe(0);
  const { scenarios, wires } = Document.parse(JSON.parse(demo.stdout));
  expect(Object.keys(scenarios)).toEqual(["failover"]);
  expect(wires).toMatchObject([{ client: "bank-client", endpoint: "bank-west@west" }]);
  const { healGapMs, failBackGapMs, packetsLost } = scenarios["failover"] ?? {};
  expect(healGapMs).toBeGreaterThan(0);
  expect(failBackGapMs).toBeGreaterThan(0);
  expect(packetsLost).toBeGreaterThan(0);
  expect(demo.stderr).toMatch(
    /cut west off[^]*bank-east answers;[^]*west is back[^]*bank-west answers again/,
  );
  await expectNothingLeft(before);
});

test("scenario chain alone replaces a link that dies, and keeps the wires beside it", async () => {
  const demo = new Demo(["--scenario", "chain", "--output", "json"]);
  expect(await demo.ended(), demo.stderr).toBe(0);
  const { scenarios, wires } = Document.parse(JSON.parse(demo.stdout));
  expect(Object.keys(scenarios)).toEqual(["chain"]);
  expect(wires).toMatchObject([{ client: "chain-client", interface: "nsm-1", mechanism: "KERNEL" }]);
  expect(demo.stderr).toContain("port 8080 passes, port 80 does not");
  for (const wire of ["client – firewall", "firewall – chain-1", "chain-3 – gateway"])
    expect(demo.stderr).toMatch(new RegExp(`${wire} .* kept`));
  await expectNothingLeft(before);
});

test("scenario heal alone kills the endpoint in use and measures the gap until the spare answers", async () => {
  const demo = new Demo(["--scenario", "heal", "--output", "json"]);
  expect(await demo.ended(), demo.stderr).toBe(0);
  const { scenarios, wires, firstPingMs, linkMs } = Document.parse(JSON.parse(demo.stdout));
  expect(Object.keys(scenarios)).toEqual(["heal"]);
  expect(wires).toMatchObject([{ client: "heal-client", interface: "nsm-1", mechanism: "KERNEL" }]);
  expect(firstPingMs).toBeGreaterThan(0);
  expect(linkMs).toBeNull();
  const { healGapMs, packetsLost } = scenarios["heal"] ?? {};
  expect(packetsLost).toBeGreaterThan(0);
  expect(healGapMs).toBeGreaterThan(0);
  const [, victim, spare] = /killed (heal-\d)[^]*healed: (heal-\d) answers/.exec(demo.stderr) ?? [];
  expect(new Set([victim, spare])).toEqual(new Set(["heal-1", "heal-2"]));
  await expectNothingLeft(before);
});

test("without /dev/net/tun the WIREGUARD wire is named with its remedy, the others are up, and the code is 3", async () => {
  const demo = new Demo(["--output", "json"], WITHOUT_TUN);
  expect(await demo.ended(), demo.stderr).toBe(3);
  const document = Document.parse(JSON.parse(demo.stdout));
  expect(wiresOf(document.wires, "client").map((wire) => wire.mechanism)).toEqual(["KERNEL", "VXLAN"]);
  expect(Object.keys(document.scenarios)).toEqual(["local", "chain", "heal"]);
  expect(document.unavailable).toEqual([
    {
      mechanism: "WIREGUARD",
      reason: expect.stringContaining("/dev/net/tun"),
      remedy: expect.stringContaining("modprobe tun"),
    },
  ]);
  await expectNothingLeft(before);
});
