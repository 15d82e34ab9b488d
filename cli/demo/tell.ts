/** Tables and hints of the demo, for people. */
import { join } from "node:path";
import { outputWidth } from "../get-print.ts";
import { packageRoot } from "../package-root.ts";
import { fitted, formatTable, terminalWidth } from "../table.ts";
import type { Unavailable } from "./machine.ts";
import type { Scenario } from "./scenario.ts";
import type { Story } from "./story.ts";
import { identityUrl, managerUrl, metricsSocket, namespaceOf, proxyAdminUrl } from "./topology.ts";
import type { ClusterName, Topology } from "./topology.ts";
import type { Progress } from "./tour.ts";
import type { WireReport } from "./wires.ts";

/** Of one client. */
export function tellDevices(
  wires: readonly WireReport[],
  { story, run }: { story: Story; run: string },
): void {
  const devices = formatTable(
    wires,
    [
      { title: "INTERFACE", value: (wire) => wire.interface },
      { title: "ADDRESSES", value: (wire) => wire.addresses.join(" ") },
      { title: "MTU", value: (wire) => String(wire.mtu) },
    ],
    [],
    terminalWidth(),
  );
  const namespace = namespaceOf(run, `pod-${wires[0]?.client}`);
  story.print(["", `Interfaces of the client (namespace ${namespace})`, ...devices]);
}

export function tellWires(wires: readonly WireReport[], story: Story): void {
  const table = formatTable(
    wires,
    [
      { title: "CLIENT", value: (wire) => wire.client },
      { title: "SERVICE", value: (wire) => wire.service },
      { title: "ENDPOINT", value: (wire) => wire.endpoint },
      { title: "MECHANISM", value: (wire) => wire.mechanism },
      { title: "ADDRESSES", value: addresses },
      { title: "MTU", value: (wire) => String(wire.mtu) },
      { title: "RTT", value: (wire) => (wire.rttMs === null ? "none" : `${wire.rttMs.toFixed(2)} ms`) },
      { title: "PINGS", value: (wire) => `${wire.pingsReceived}/${wire.pingsSent}` },
    ],
    [{ title: "PATH", value: (wire) => wire.path.join(" → ") }],
    terminalWidth(),
  );
  story.print(["", "Wires", ...table, ""]);
}

function addresses(wire: WireReport): string {
  const plain = (list: readonly string[]) => list.map((address) => address.split("/")[0]).join(",");
  return `${plain(wire.addresses)} → ${plain(wire.peers)}`;
}

/** `interrupted`: what was not done has not failed. */
export function tellScenarios(
  { scenarios, firstPingMs, firstPingBetweenClustersMs, linkMs }: Progress,
  interrupted: boolean,
  story: Story,
): void {
  const after = (what: string, ms: number | null) =>
    ms === null ? [] : [`${what} ${(ms / 1000).toFixed(2)} s`];
  if (Object.keys(scenarios).length === 0) return;
  const moments = [
    ...after("first reply after", firstPingMs),
    ...after("clusters linked within", linkMs),
    ...after("first reply between them after", firstPingBetweenClustersMs),
  ];
  const figure = (value: number | null, unit: string) => (value === null ? "" : `${value}${unit}`);
  const table = formatTable(
    Object.entries(scenarios),
    [
      { title: "SCENARIO", value: ([name]) => name },
      { title: "", value: ([, { ok }]) => (ok ? "ok" : interrupted ? "stopped" : "FAILED") },
      { title: "SET-UP", value: ([, { setupMs }]) => figure(setupMs, " ms") },
      { title: "RTT", value: ([, { rttMs }]) => figure(rttMs, " ms") },
      { title: "GAP", value: ([, { healGapMs }]) => figure(healGapMs, " ms") },
      { title: "GAP BACK", value: ([, { failBackGapMs }]) => figure(failBackGapMs, " ms") },
      { title: "LOST", value: ([, { packetsLost }]) => figure(packetsLost, "") },
    ],
    [],
    terminalWidth(),
  );
  story.print([
    "",
    ...table,
    "",
    ...(moments.length === 0 ? [] : [...fitted(moments.join(", "), outputWidth(), "  "), ""]),
  ]);
}

export function tellUnavailable(unavailable: readonly Unavailable[], story: Story): void {
  story.print(
    unavailable.flatMap(({ mechanism, reason, remedy }) => [
      `No ${mechanism} wire on this machine: ${reason}`,
      `    ${remedy}`,
    ]),
  );
}

/** What to look at in a mesh that was kept. */
export function tellTour(
  { run, folder, sites: [site] }: Topology,
  scenarios: readonly Scenario[],
  story: Story,
): void {
  const looks = scenarios.flatMap(({ look }) => look);
  story.print([
    "The mesh is running. Look around:",
    ...looks.map(({ place, command }) => `  ip netns exec ${namespaceOf(run, place)} ${command}`),
    `  tail -f ${folder}/logs/*.log`,
    "Ask its manager (you are registered as an operator):",
    `  export SPIFFE_ENDPOINT_SOCKET=${identityUrl(folder, site?.authority)}`,
    `  export NSM_CONNECT_TO=${managerUrl(folder, "node1")}`,
    `  look() { ip netns exec ${namespaceOf(run, "node1")} ${ourName()} "$@"; }`,
    "  look get wires                      # also services, endpoints, clients; -o wide, --watch",
    ...scenarios.flatMap(({ ask }) => ask.map((words) => `  look ${words}`)),
    ...(site?.cluster === undefined ? [] : linkHints(folder, site.cluster)),
    "And each process for its metrics:",
    `  curl --unix-socket ${metricsSocket(folder, "forwarder-node1")} http://localhost/metrics`,
    "End it:",
    `  ${ourName()} demo down --run ${run}`,
  ]);
}

function linkHints(folder: string, cluster: ClusterName): readonly string[] {
  return [
    `And the proxy of ${cluster} for its links:`,
    `  export NSM_PROXY_ADMIN=${proxyAdminUrl(folder, cluster)}`,
    "  look link list",
    "  look get services --all-domains",
  ];
}

/** How this command can be called from any folder. */
function ourName(): string {
  const isCheckout = import.meta.filename.endsWith(".ts");
  return isCheckout ? `node ${join(packageRoot(), "bin/nsm.js")}` : "nsm";
}
