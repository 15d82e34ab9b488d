/** A chain of endpoints on one node: client, firewall, two links that pass on, and a gateway (docs/protocol.md, "Chaining"). */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Connection } from "../../api/gen/connection_pb.js";
import { canConnect, startListener } from "../../cli/probe/start.ts";
import { namespaceFile } from "../../cli/demo/commands.ts";
import { afterAll, expect, test } from "vitest";
import { chainService } from "../support/chains.ts";
import { fresh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { refreshOf, wishFor } from "../support/wishes.ts";
import { devicesIn, pingFrom } from "../support/wires.ts";

const LINKS = ["firewall", "link-2", "link-3"];
const GATEWAY = { v4: "172.16.9.0", v6: "2001:db8:9::" };
const RULES = `
rules:
  - { name: ping, action: allow, protocol: icmp }
  - { name: web, action: allow, protocol: tcp, destination: 172.16.9.0/24, ports: [8080, "9000-9010"] }
`;

const CHAIN = chainService("chain", "IP", [...LINKS, "gateway"]);

const folder = mkdtempSync(join(tmpdir(), "nsm-chain-"));
const rulesFile = join(folder, "rules.yaml");

const link = (name: string, app: string, started = true) => ({
  name,
  service: "chain",
  kind: name === "firewall" ? ("firewall" as const) : ("passthrough" as const),
  env: { NSM_LABELS: `app:${app}`, ...(name === "firewall" && { NSM_ACL_CONFIG_PATH: rulesFile }) },
  started,
});

writeFileSync(rulesFile, RULES);
afterAll(() => rmSync(folder, { recursive: true }));
const mesh = useMesh({
  nodes: 1,
  networkServices: CHAIN,
  endpoints: [
    ...LINKS.map((name) => link(name, name)),
    link("link-2b", "link-2", false),
    link("link-3b", "link-3", false),
    {
      name: "gateway",
      service: "chain",
      prefixes: "172.16.9.0/24,2001:db8:9::/112",
      env: { NSM_LABELS: "app:gateway" },
    },
  ],
  clients: [{ name: "client", services: "kernel://chain/nsm-1" }],
  workloads: ["walker"],
  pods: ["pod-walker"],
});

const wiresOf = (pod: string) =>
  devicesIn(mesh.namespace(`pod-${pod}`)).map(({ name, ifindex }) => `${name} ${ifindex}`);

test("PassThroughLocal: the client's path has four segments a link, and packets pass both ways", async () => {
  const { path } = await mesh.established("client", "nsm-1");
  const hops = ["nsmgr-node1", "forwarder-node1"];
  expect(path).toEqual(["client", ...[...LINKS, "gateway"].flatMap((name) => [...hops, name])]);
  expect(await pingFrom(mesh.namespace("pod-client"), "172.16.9.0")).toMatchObject({ received: 5 });
  expect(await pingFrom(mesh.namespace("pod-client"), "2001:db8:9::")).toMatchObject({ received: 5 });
});

test("five refreshes and one Close of another client pass each link once, and leave what the first one has", async () => {
  const pods = [...LINKS, "gateway", "client"];
  const before = pods.map(wiresOf);
  await using walker = await mesh.workload("walker", "pod-walker");
  const removed = () => mesh.daemon("forwarder-node1").log.filter(({ msg }) => msg === "wire removed").length;
  let wire = await walker.request(wishFor(walker, { service: "chain" }));
  const made = [...pods.map(wiresOf), wiresOf("walker")];
  const path = idsOf(wire);
  expect(path).toHaveLength(3 * (LINKS.length + 1) + 1);
  for (let refresh = 0; refresh < 5; refresh++) {
    wire = await walker.request(refreshOf(wire));
    expect(idsOf(wire)).toEqual(path);
  }
  expect([...pods.map(wiresOf), wiresOf("walker")]).toEqual(made);
  const earlier = removed();
  await walker.close(wire);
  await eventually("every link has lost what it had", () => removed() === earlier + LINKS.length + 1);
  expect(pods.map(wiresOf)).toEqual(before);
  expect(wiresOf("walker")).toEqual([]);
});

const idsOf = ({ path }: Connection) => path?.pathSegments.map(({ name, id }) => `${name} ${id}`) ?? [];

test("the firewall lets through what its rules allow, and nothing else", async () => {
  const inPod = (pod: string) => ({ netns: namespaceFile(mesh.namespace(`pod-${pod}`).name) });
  await using web = await startListener(GATEWAY.v4, [80, 8080, 9005], inPod("gateway"));
  await using six = await startListener(GATEWAY.v6, [8080], inPod("gateway"));
  void web;
  void six;
  const reaches = (port: number, address = GATEWAY.v4) => canConnect(address, port, inPod("client"));
  expect(await reaches(8080)).toBe(true);
  expect(await reaches(9005)).toBe(true);
  expect(await reaches(80)).toBe(false);
  expect(await reaches(8080, GATEWAY.v6)).toBe(false);

  const said = fresh(mesh.daemon("firewall"));
  writeFileSync(rulesFile, RULES.replace("8080,", "80, 80-"));
  const complaint = await said(({ msg }) => msg.startsWith("firewall rules cannot be used"));
  expect(JSON.stringify(complaint)).toMatch(/line 4, column \d+/);
  expect(await reaches(8080)).toBe(true);

  writeFileSync(rulesFile, RULES.replace("8080,", "80,"));
  await said(({ msg, rules }) => msg === "firewall rules in force" && rules === 2);
  expect(await reaches(80)).toBe(true);
  expect(await reaches(8080)).toBe(false);
  const counters = mesh.namespace("pod-firewall").exec("nft", "list", "counters");
  expect(counters).toMatch(/counter r_\w+ \{\s+packets [1-9]/);
});

test("a link that is killed is replaced by another of its labels, and the other wires stay", async () => {
  mesh.start("link-2b");
  await mesh.daemon("link-2b").waitFor("endpoint link-2b registered");
  const pods = ["client", "firewall", "link-3", "gateway"];
  const kept = new Map(pods.map((pod) => [pod, wiresOf(pod)]));
  await mesh.daemon("link-2").kill();
  // Who is dead has no wires any more, or an old one at the most that leads nowhere.
  await eventually("link-2b has two wires", () => wiresOf("link-2b").length === 2, 20_000);
  await eventually(
    "the wire to link-2 is gone",
    () =>
      !wiresOf("firewall").some(
        (wire) => kept.get("firewall")?.includes(wire) === true && wire.startsWith("out-"),
      ),
  );
  await eventually("link-3 has lost the wire to link-2", () => wiresOf("link-3").length === 2, 20_000);
  await eventually("packets pass", async () => {
    const { received } = await pingFrom(mesh.namespace("pod-client"), "172.16.9.0");
    return received === 5;
  });
  expect(wiresOf("client")).toEqual(kept.get("client"));
  expect(wiresOf("gateway")).toEqual(kept.get("gateway"));
  const keptOf = (pod: string, side: string) => kept.get(pod)?.filter((wire) => wire.startsWith(side)) ?? [];
  expect(wiresOf("firewall")).toEqual(expect.arrayContaining(keptOf("firewall", "in-")));
  expect(wiresOf("link-3")).toEqual(expect.arrayContaining(keptOf("link-3", "out-")));
});

test("the last link is killed and replaced: the client and the gateway have the addresses of before, and one wire each", async () => {
  mesh.start("link-3b");
  await mesh.daemon("link-3b").waitFor("endpoint link-3b registered");
  const addressesOf = (pod: string) =>
    mesh.namespace(`pod-${pod}`).exec("ip", "-brief", "address", "show", "scope", "global");
  const client = { wires: wiresOf("client"), addresses: addressesOf("client") };
  const since = mesh.daemon("client").log.length;
  await mesh.daemon("link-3").kill();
  await eventually("link-3b has two wires", () => wiresOf("link-3b").length === 2, 20_000);
  await eventually("packets pass", async () => {
    const { received } = await pingFrom(mesh.namespace("pod-client"), "172.16.9.0");
    return received === 5;
  });
  await eventually("the gateway has one wire", () => wiresOf("gateway").length === 1, 20_000);
  expect({ wires: wiresOf("client"), addresses: addressesOf("client") }).toEqual(client);
  const said = mesh.daemon("client").log.slice(since);
  expect(said.map(({ msg }) => msg)).not.toContain("wire established");
});

test("one Close of the client closes each link once, and leaves nothing", async () => {
  expect(await mesh.daemon("client").stop()).toBe(0);
  for (const pod of ["firewall", "link-2b", "link-3b", "gateway"])
    await eventually(`no wire in ${pod}`, () => wiresOf(pod).length === 0);
});
