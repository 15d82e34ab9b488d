/**
 * floating_nse_composition: a chain of endpoints of two domains, which all register in a third one that is a registry alone. Each
 * link's labels lead to the next one wherever it is:
 *
 *     client (east) ──► firewall (east) ──► link-1 (west) ──► link-2 (east) ──► gateway (west)
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { canConnect, startListener } from "../../cli/probe/start.ts";
import type { NodeName } from "../../cli/demo/topology.ts";
import { chainService } from "../support/chains.ts";
import { useMesh } from "../support/use-mesh.ts";
import { devicesIn, pingFrom } from "../support/wires.ts";

/** Neither address is excluded by anybody. */
const GATEWAY = "172.16.1.2";
const CLIENT = "172.16.1.3";
const [ALLOWED, DENIED] = [8080, 80];
const RULES = `
rules:
  - { name: ping, action: allow, protocol: icmp, from: both }
  - { name: web, action: allow, protocol: tcp, ports: ${ALLOWED} }
`;
const folder = mkdtempSync(join(tmpdir(), "floating-"));
const rulesFile = join(folder, "rules.yaml");
beforeAll(() => writeFileSync(rulesFile, RULES));
afterAll(() => rmSync(folder, { recursive: true }));

const links = [
  { name: "firewall", kind: "firewall", node: "node1" },
  { name: "link-1", kind: "passthrough", node: "node3" },
  { name: "link-2", kind: "passthrough", node: "node1" },
  { name: "gateway", kind: undefined, node: "node3" },
] as const;

const mesh = useMesh({
  clusters: "unified",
  nodes: 1,
  floating: true,
  networkServices: {
    floating: chainService(
      "chain",
      "IP",
      links.map(({ name }) => name),
    ),
  },
  endpoints: links.map(({ name, kind, node }) => ({
    name,
    node,
    service: "chain@floating",
    ...(kind === undefined ? { prefixes: "172.16.1.2/31" } : { kind }),
    env: {
      NSM_NAME: `${name}@floating`,
      NSM_LABELS: `app:${name}`,
      ...(kind === "firewall" && { NSM_ACL_CONFIG_PATH: rulesFile }),
    },
  })),
  clients: [{ name: "client", services: "kernel://chain@floating/nsm-1", started: false }],
});

const daemons = (node: NodeName) => [`nsmgr-${node}`, `forwarder-${node}`];
const EAST_TO_WEST = [...daemons("node1"), "proxy-east", "proxy-west", ...daemons("node3")];
const WEST_TO_EAST = [...daemons("node3"), "proxy-west", "proxy-east", ...daemons("node1")];

test("floating_nse_composition", async () => {
  mesh.start("client");
  const { path } = await mesh.established("client", "nsm-1");
  expect(path).toEqual([
    "client",
    ...daemons("node1"),
    "firewall@floating",
    ...EAST_TO_WEST,
    "link-1@floating",
    ...WEST_TO_EAST,
    "link-2@floating",
    ...EAST_TO_WEST,
    "gateway@floating",
  ]);
  const netnsOf = (pod: string) => `/run/netns/${mesh.namespace(pod).name}`;
  expect(await pingFrom(mesh.namespace("pod-client"), GATEWAY)).toMatchObject({ received: 5 });
  expect(await pingFrom(mesh.namespace("pod-gateway"), CLIENT)).toMatchObject({ received: 5 });
  {
    await using listener = await startListener(GATEWAY, [ALLOWED, DENIED], { netns: netnsOf("pod-gateway") });
    void listener;
    const connects = (port: number) => canConnect(GATEWAY, port, { netns: netnsOf("pod-client") });
    expect(await connects(ALLOWED)).toBe(true);
    expect(await connects(DENIED)).toBe(false);
  }
  expect(await mesh.daemon("client").stop()).toBe(0);
  for (const { name } of links) expect(devicesIn(mesh.namespace(`pod-${name}`))).toEqual([]);
  await mesh.expectAsStarted();
});
