/**
 * What lies between two clusters that use the same addresses inside: a gate each, which gives every node an address outside
 * (1:1, both ways), and a router, at which the clusters can be cut off from one another.
 *
 *     node1 ─┐ bridge                                                       bridge ┌─ node3
 *            ├─ lan  gate-east  wan ──── east  router  west ──── wan  gate-west  lan ─┤
 *     node2 ─┘ 192.0.2.254        198.51.100.0/24  203.0.113.0/24      192.0.2.254 └─ node4
 *
 * The gates change addresses packet by packet, as clouds do, so that nothing is forgotten however long a cut lasts. Inside a
 * cluster the addresses of the other one's nodes mean its own nodes: only those outside work between clusters.
 */
import { NsmError } from "../../sdk/errors.ts";
import { deviceUp, ipBatch, namespaceFile, run } from "./commands.ts";
import { CLUSTERS, NODES_OF, gateOf, namespaceOf, outside, underlay } from "./topology.ts";
import type { ClusterName, Topology } from "./topology.ts";

const ROUTER = "router";
/** Of a gate, where its nodes see it. */
const GATE_INSIDE = "192.0.2.254";

/** Of each cluster's network outside. */
const BORDER: Readonly<Record<ClusterName, { readonly gate: string; readonly router: string }>> = {
  east: { gate: "198.51.100.254", router: "198.51.100.253" },
  west: { gate: "203.0.113.254", router: "203.0.113.253" },
};

/** Joins the nodes of each cluster and the clusters; all namespaces are there. */
export async function joinClusters({ run: name }: Topology, env: NodeJS.ProcessEnv): Promise<void> {
  const inside = (place: string) => namespaceOf(name, place);
  const ipIn = (place: string, lines: readonly string[]) => ipBatch(lines, env, ["-n", inside(place)]);
  const pairs = CLUSTERS.flatMap((cluster) => [
    ...NODES_OF[cluster].map((node) => [node, "underlay", gateOf(cluster), node] as const),
    [gateOf(cluster), "wan", ROUTER, cluster] as const,
  ]);
  await ipBatch(
    pairs.map(
      ([place, device, other, peer]) =>
        `link add name ${device} netns ${inside(place)} type veth peer name ${peer} netns ${inside(other)}`,
    ),
    env,
  );
  await Promise.all(
    CLUSTERS.map(async (cluster) => {
      await ipIn(gateOf(cluster), gateUp(cluster));
      await ipIn(ROUTER, deviceUp(cluster, BORDER[cluster].router));
      await Promise.all(
        NODES_OF[cluster].map((node) =>
          ipIn(node, [...deviceUp("underlay", underlay[node]), `route add default via ${GATE_INSIDE}`]),
        ),
      );
      await forward(inside(gateOf(cluster)), env);
      await nft(inside(gateOf(cluster)), translation(cluster), env);
    }),
  );
  await forward(inside(ROUTER), env);
}

function gateUp(cluster: ClusterName): readonly string[] {
  return [
    "link add name lan type bridge ageing_time 0", // two ports: nothing to learn
    ...NODES_OF[cluster].flatMap((node) => [
      `link set dev ${node} addrgenmode none`,
      `link set dev ${node} master lan up`,
    ]),
    ...deviceUp("lan", GATE_INSIDE),
    ...deviceUp("wan", BORDER[cluster].gate),
    // So that it answers for them.
    ...NODES_OF[cluster].map((node) => `address add ${outside[node]}/24 dev wan`),
    `route add default via ${BORDER[cluster].router}`,
  ];
}

/** Stateless: what comes to an outer address goes to the node, what a node sends bears its outer address. */
function translation(cluster: ClusterName): string {
  const map = (pairs: readonly (readonly [string, string])[]) =>
    `{ ${pairs.map(([key, value]) => `${key} : ${value}`).join(", ")} }`;
  const nodes = NODES_OF[cluster];
  return `table ip border {
  chain in {
    type filter hook prerouting priority raw
    iifname "wan" ip daddr set ip daddr map ${map(nodes.map((node) => [outside[node], underlay[node]]))}
  }
  chain out {
    type filter hook postrouting priority srcnat
    oifname "wan" ip saddr set ip saddr map ${map(nodes.map((node) => [underlay[node], outside[node]]))}
  }
}
`;
}

/**
 * What of the way between the clusters is cut: everything, one direction, or one kind of packets (`control`: TCP; `data`:
 * tunnels).
 */
export type Cut = "everything" | "to-east" | "to-west" | "control" | "data";

const DROPPED: Readonly<Record<Cut, string>> = {
  everything: "drop",
  "to-east": 'oifname "east" drop',
  "to-west": 'oifname "west" drop',
  control: "meta l4proto tcp drop",
  data: "meta l4proto != tcp drop",
};

/** Packets vanish at the router, without a word to their senders; in place of an earlier cut. */
export async function cutClusters(run: string, what: Cut, env: NodeJS.ProcessEnv): Promise<void> {
  const table = `table ip cut {
  chain cut {
    type filter hook forward priority filter
    ${DROPPED[what]}
  }
}
`;
  await nft(namespaceOf(run, ROUTER), `table ip cut\ndelete table ip cut\n${table}`, env);
}

/** As if nothing had been cut. */
export async function mendClusters(run: string, env: NodeJS.ProcessEnv): Promise<void> {
  await nft(namespaceOf(run, ROUTER), "table ip cut\ndelete table ip cut\n", env);
}

async function nft(namespace: string, script: string, env: NodeJS.ProcessEnv): Promise<void> {
  const command = [`--net=${namespaceFile(namespace)}`, "--", "nft", "-f", "-"];
  const { code, stderr } = await run("nsenter", command, script, env);
  if (code !== 0)
    throw new NsmError("FAILED_PRECONDITION", "nft-failed", `nft in ${namespace}: ${stderr.trim()}`);
}

async function forward(namespace: string, env: NodeJS.ProcessEnv): Promise<void> {
  const shell = ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
  const { code, stderr } = await run(
    "nsenter",
    [`--net=${namespaceFile(namespace)}`, "--", ...shell],
    "",
    env,
  );
  if (code !== 0)
    throw new NsmError(
      "FAILED_PRECONDITION",
      "no-forwarding",
      `cannot make ${namespace} a router (${stderr.trim()}): /proc/sys must be writable (docker run --privileged)`,
    );
}
