/**
 * Scenario `local`: one client, a wire of each kind.
 *
 *     pod-client   pod-nse-1                                pod-nse-2, pod-nse-3
 *          └─ nsm-1 ───┘ (KERNEL)                               │          │
 *          └─ nsm-2 ──────────────── (WIREGUARD) ───────────────┘          │
 *          └─ nsm-3 ──────────────── (VXLAN) ──────────────────────────────┘
 */
import { monotonicMs } from "../../probe/main.ts";
import type { Machine } from "../machine.ts";
import type { Scenario } from "../scenario.ts";
import { tellDevices, tellWires } from "../tell.ts";
import type { EndpointSpec } from "../parts.ts";
import type { MechanismName } from "../topology.ts";
import { PINGS_NEEDED } from "../wires.ts";

const CLIENT = "client";

/** One wire that the client asks for. */
interface WantedWire extends EndpointSpec {
  readonly mechanism: MechanismName;
  readonly interface: string;
}

const wires: readonly WantedWire[] = [
  {
    mechanism: "KERNEL",
    interface: "nsm-1",
    service: "same-node",
    name: "nse-1",
    node: "node1",
    payload: "IP",
    prefixes: "172.16.1.0/24",
  },
  {
    mechanism: "WIREGUARD",
    interface: "nsm-2",
    service: "other-node",
    name: "nse-2",
    node: "node2",
    payload: "IP",
    prefixes: "172.16.2.0/24",
  },
  {
    mechanism: "VXLAN",
    interface: "nsm-3",
    service: "other-lan",
    name: "nse-3",
    node: "node2",
    payload: "ETHERNET",
    prefixes: "172.16.3.0/24",
  },
];

const wiresOf = ({ mechanisms }: Machine) => wires.filter(({ mechanism }) => mechanisms.has(mechanism));

export const local: Scenario = {
  name: "local",
  clusters: false,
  mechanisms: wires.map(({ mechanism }) => mechanism),
  parts(make, machine) {
    const wanted = wiresOf(machine);
    return [
      ...wanted.map((wire) => make.endpoint(wire)),
      make.client({
        name: CLIENT,
        services: wanted.map((wire) => `kernel://${wire.service}/${wire.interface}`).join(","),
      }),
    ];
  },
  look: [
    { place: `pod-${CLIENT}`, command: "ip address" },
    { place: `pod-${CLIENT}`, command: "ip -details link show nsm-3" },
    { place: "node1", command: "ip address" },
    { place: "node1", command: "nft list ruleset" },
  ],
  ask: [`describe wire ${CLIENT}-0`],
  async play(stage) {
    const { story } = stage;
    let setupMs = 0;
    const reports = await Promise.all(
      wiresOf(stage.machine).map(async (wire) => {
        const established = await stage.established(CLIENT, (each) => each.interface === wire.interface);
        setupMs = Math.round(monotonicMs() - stage.startMs);
        story.step(`${wire.interface} is up: ${established.service} at ${established.nse}`);
        return stage.ping(CLIENT, established);
      }),
    );
    story.step(`pinged over ${reports.length} wires`);
    tellDevices(reports, stage);
    tellWires(reports, story);
    return {
      ok: reports.every(({ pingsReceived }) => pingsReceived >= PINGS_NEEDED),
      setupMs,
      healGapMs: null,
      failBackGapMs: null,
      packetsLost: reports.reduce((lost, wire) => lost + wire.pingsSent - wire.pingsReceived, 0),
      wires: reports,
    };
  },
};
