/** What the forwarder says of a wire in its own path segment (docs/protocol.md, "Wires"): interfaces and counters, for people to read. */
import type { Connection, Mechanism } from "../api/gen/connection_pb.js";
import type { EndStats } from "./stats.ts";

/** The mechanism towards either side; `server` is the client's side, as the Go forwarders call it. */
export interface SegmentMechanisms {
  readonly server: Mechanism;
  readonly client: Mechanism | undefined;
}

/**
 * Writes `<side>_interface` and `<side>_{rx,tx}_{bytes,packets}`, `<side>_drops` into the segment at the connection's index. As
 * seen from the forwarder: what it receives is what the pod's device sent. A tunnel has one device, which speaks for both sides.
 */
export function writeSegmentMetrics(
  { path }: Connection,
  { server, client }: SegmentMechanisms,
  stats: readonly EndStats[],
): void {
  const segment = path?.pathSegments[path.index];
  if (segment === undefined) return;
  const [first] = stats;
  const towardsClient = stats.find(({ side }) => side === "client") ?? (first && mirrored(first));
  const towardsEndpoint = stats.find(({ side }) => side === "endpoint") ?? (first && mirrored(first));
  segment.metrics = {
    ...segment.metrics,
    server_interface: interfaceOf(server),
    ...(client && { client_interface: interfaceOf(client) }),
    ...countersOf("server", towardsClient),
    ...countersOf("client", towardsEndpoint),
  };
}

type Counted = Pick<EndStats, "rxPackets" | "txPackets" | "rxBytes" | "txBytes" | "rxDropped" | "txDropped">;

function mirrored(end: Counted): Counted {
  const { rxPackets, txPackets, rxBytes, txBytes } = end;
  return { ...end, rxPackets: txPackets, txPackets: rxPackets, rxBytes: txBytes, txBytes: rxBytes };
}

function interfaceOf({ type, parameters }: Mechanism): string {
  return `${type}/${parameters["name"] ?? ""}`;
}

function countersOf(side: "server" | "client", device: Counted | undefined): Record<string, string> {
  if (device === undefined) return {};
  return {
    [`${side}_rx_bytes`]: String(device.txBytes),
    [`${side}_tx_bytes`]: String(device.rxBytes),
    [`${side}_rx_packets`]: String(device.txPackets),
    [`${side}_tx_packets`]: String(device.rxPackets),
    [`${side}_drops`]: String(device.rxDropped + device.txDropped),
  };
}
