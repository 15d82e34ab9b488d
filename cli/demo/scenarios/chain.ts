/**
 * Scenario `chain`: a client reaches a gateway through a firewall and three links; one link dies with its pod and is replaced.
 *
 *     client ── firewall ── chain-1 ── chain-2 ── chain-3 ── gateway        each in a pod of its own, all of service `chain`
 *                                   └─ chain-2b ┘
 */
import { join } from "node:path";
import { delay } from "../../../sdk/clock.ts";
import { monotonicMs } from "../../probe/main.ts";
import { nft } from "../../requirements.ts";
import { formatTable, terminalWidth } from "../../table.ts";
import type { Scenario } from "../scenario.ts";
import type { Stage } from "../stage.ts";
import { PINGS_NEEDED } from "../wires.ts";
import { FIREWALL_RULES, checkFirewall } from "./firewall.ts";

const CLIENT = "chain-client";
const FIREWALL = "chain-firewall";
const LINKS = ["chain-1", "chain-2", "chain-3"] as const;
const VICTIM = "chain-2";
const SPARE = "chain-2b";
const GATEWAY = "chain-gateway";
const RULES_FILE = "pods/chain-rules.yaml";
/** Probes before the death and after the healing, so that both are a part of the picture. */
const AROUND_MS = 300;

const hop = (from: string, to: string) => ({
  source_selector: { app: from },
  routes: [{ destination_selector: { app: to } }],
});

/** The wires of the chain, each by a device at one of its ends: pod, and how its name begins. */
const WIRES = [
  { wire: "client – firewall", pod: CLIENT, device: "nsm-1" },
  { wire: "firewall – chain-1", pod: FIREWALL, device: "out-" },
  { wire: "chain-1 – chain-2", pod: "chain-1", device: "out-" },
  { wire: "chain-2 – chain-3", pod: "chain-3", device: "in-" },
  { wire: "chain-3 – gateway", pod: "chain-3", device: "out-" },
] as const;
/** Those that the victim has an end of. */
const REMADE = new Set<string>(["chain-1 – chain-2", "chain-2 – chain-3"]);

export const chain: Scenario = {
  name: "chain",
  clusters: false,
  mechanisms: ["KERNEL"],
  tools: [nft],
  later: [SPARE],
  parts(make) {
    const link = (name: string, app = name) =>
      make.endpoint({ name, service: "chain", kind: "passthrough", env: { NSM_LABELS: `app:${app}` } });
    return [
      make.endpoint({
        name: FIREWALL,
        service: "chain",
        kind: "firewall",
        env: { NSM_LABELS: "app:firewall", NSM_ACL_CONFIG_PATH: join(make.folder, RULES_FILE) },
      }),
      ...LINKS.map((name) => link(name)),
      link(SPARE, VICTIM),
      make.endpoint({
        name: GATEWAY,
        service: "chain",
        prefixes: "172.16.5.0/24",
        env: { NSM_LABELS: "app:gateway" },
      }),
      make.client({ name: CLIENT, services: "kernel://chain/nsm-1" }),
    ];
  },
  services: {
    east: [
      {
        name: "chain",
        spec: {
          matches: [
            hop("firewall", "chain-1"),
            hop("chain-1", "chain-2"),
            hop("chain-2", "chain-3"),
            hop("chain-3", "gateway"),
            { routes: [{ destination_selector: { app: "firewall" } }] },
          ],
        },
      },
    ],
  },
  files: { [RULES_FILE]: FIREWALL_RULES },
  look: [
    { place: `pod-${CLIENT}`, command: "ip address" },
    { place: `pod-${FIREWALL}`, command: "nft list ruleset" },
    { place: `pod-${FIREWALL}`, command: "ip rule" },
  ],
  ask: [`describe wire ${CLIENT}-0`, `explain ${CLIENT} chain`],
  async play(stage) {
    const { story, signal } = stage;
    await using ends = new AsyncDisposableStack();
    const wire = await stage.established(CLIENT, () => true);
    const setupMs = Math.round(monotonicMs() - stage.startMs);
    story.step(
      `${CLIENT} has a wire through ${wire.path
        .filter((name) => name.startsWith("chain-"))
        .slice(1)
        .join(", ")}`,
    );
    const report = await stage.ping(CLIENT, wire);
    const target = wire.peerAddresses[0]?.split("/")[0] ?? "";
    const isFiltered = await checkFirewall(stage, CLIENT, GATEWAY, target);

    ends.use(await stage.reflector(GATEWAY, `pod-${GATEWAY}`));
    stage.start(SPARE);
    await stage.checkProber();
    const prober = ends.use(await stage.prober(`pod-${CLIENT}`, target));
    await prober.waitFor(() => true, signal);
    await delay(AROUND_MS, signal);
    const before = await indexesOf(stage);
    await stage.kill(VICTIM);
    await stage.removeNamespace(`pod-${VICTIM}`);
    story.step(`killed ${VICTIM} and removed its pod, with a probe each millisecond on the way`);
    while ((await stage.deviceIndexes(`pod-${SPARE}`)).size < 2) await delay(20, signal);
    await delay(AROUND_MS, signal);
    const { gapMs, lost } = await prober.stop();
    story.step(`${SPARE} is in its place; nothing for ${gapMs.toFixed(0)} ms, ${lost} probes lost`);
    const after = await indexesOf(stage);
    const { pingsReceived } = await stage.ping(CLIENT, wire);
    const isKept = ({ wire: name }: (typeof WIRES)[number]) => before.get(name) === after.get(name);
    tellWires(stage, before, after);
    const kept = WIRES.filter(({ wire: name }) => !REMADE.has(name)).every(isKept);
    return {
      ok: Math.min(report.pingsReceived, pingsReceived) >= PINGS_NEEDED && isFiltered && kept,
      setupMs,
      healGapMs: Math.round(gapMs),
      failBackGapMs: null,
      packetsLost: lost,
      wires: [report],
    };
  },
};

/** By wire. */
async function indexesOf(stage: Stage): Promise<ReadonlyMap<string, number>> {
  const found = await Promise.all(
    WIRES.map(async ({ wire, pod, device }) => {
      const devices = [...(await stage.deviceIndexes(`pod-${pod}`))].filter(([name]) =>
        name.startsWith(device),
      );
      return [wire, devices.at(-1)?.[1] ?? 0] as const;
    }),
  );
  return new Map(found);
}

function tellWires(
  { story }: Stage,
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
): void {
  const index = (of: ReadonlyMap<string, number>, wire: string) => String(of.get(wire) ?? "");
  const table = formatTable(
    WIRES,
    [
      { title: "WIRE", value: ({ wire }) => wire },
      { title: "INDEX BEFORE", value: ({ wire }) => index(before, wire) },
      { title: "AFTER", value: ({ wire }) => index(after, wire) },
      { title: "", value: ({ wire }) => (before.get(wire) === after.get(wire) ? "kept" : "new") },
    ],
    [],
    terminalWidth(),
  );
  story.print(["", ...table, ""]);
}
