/**
 * Scenario `clusters`: clients in `east` reach endpoints in `west`, one of them through a firewall in `east`.
 *
 *     pod-web-client  ── nsm-1 ═════════════════════════ (WIREGUARD) ═══ pod-web-1
 *     pod-edge-client ── nsm-1 ── pod-edge-firewall ════ (WIREGUARD) ═══ pod-edge-gateway
 *                         east                     router                 west
 */
import { join } from "node:path";
import { monotonicMs } from "../../probe/main.ts";
import { nft } from "../../requirements.ts";
import type { Scenario } from "../scenario.ts";
import { tellWires } from "../tell.ts";
import { PINGS_NEEDED } from "../wires.ts";
import { FIREWALL_RULES, checkFirewall } from "./firewall.ts";

const WEB_CLIENT = "web-client";
const WEB = "web-1";
const EDGE_CLIENT = "edge-client";
const FIREWALL = "edge-firewall";
const GATEWAY = "edge-gateway";
const RULES_FILE = "pods/edge-rules.yaml";

export const clusters: Scenario = {
  name: "clusters",
  clusters: true,
  mechanisms: ["WIREGUARD"],
  tools: [nft],
  parts: (make) => [
    make.endpoint({ name: WEB, node: "node3", service: "web", prefixes: "172.16.6.0/24" }),
    make.client({ name: WEB_CLIENT, services: "kernel://web@west/nsm-1" }),
    make.endpoint({
      name: GATEWAY,
      node: "node4",
      service: "edge",
      prefixes: "172.16.7.0/24",
      env: { NSM_LABELS: "app:gateway" },
    }),
    make.endpoint({
      name: FIREWALL,
      node: "node2",
      service: "edge",
      kind: "firewall",
      env: { NSM_LABELS: "app:firewall", NSM_ACL_CONFIG_PATH: join(make.folder, RULES_FILE) },
    }),
    make.client({ name: EDGE_CLIENT, services: "kernel://edge/nsm-1" }),
  ],
  services: {
    east: [
      {
        name: "edge",
        spec: {
          importFrom: ["west"],
          matches: [
            {
              source_selector: { app: "firewall" },
              routes: [{ destination_selector: { app: "gateway" } }],
            },
            { routes: [{ destination_selector: { app: "firewall" } }] },
          ],
        },
      },
    ],
    west: [{ name: "edge", spec: { exportTo: ["east"] } }],
  },
  exports: { west: ["web"] },
  files: { [RULES_FILE]: FIREWALL_RULES },
  look: [
    { place: `pod-${WEB_CLIENT}`, command: "ip address" },
    { place: "gate-east", command: "nft list ruleset" },
  ],
  ask: [`describe wire ${EDGE_CLIENT}-0`, `explain ${EDGE_CLIENT} edge`],
  async play(stage) {
    const { story } = stage;
    const wires = await Promise.all(
      [WEB_CLIENT, EDGE_CLIENT].map(async (client) => {
        const wire = await stage.established(client, () => true);
        story.step(`${client} in east is wired to ${wire.nse}`);
        return { wire, setupMs: monotonicMs() - stage.startMs, report: await stage.ping(client, wire) };
      }),
    );
    const reports = wires.map(({ report }) => report);
    tellWires(reports, story);
    const [edge] = wires.filter(({ report }) => report.client === EDGE_CLIENT);
    const target = edge?.wire.peerAddresses[0]?.split("/")[0] ?? "";
    const isFiltered = await checkFirewall(stage, EDGE_CLIENT, GATEWAY, target);
    return {
      ok: isFiltered && reports.every(({ pingsReceived }) => pingsReceived >= PINGS_NEEDED),
      setupMs: Math.round(Math.max(...wires.map(({ setupMs }) => setupMs))),
      healGapMs: null,
      failBackGapMs: null,
      packetsLost: reports.reduce((lost, wire) => lost + wire.pingsSent - wire.pingsReceived, 0),
      wires: reports,
    };
  },
};
