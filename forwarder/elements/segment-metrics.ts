/** What the forwarder says of a wire in its own path segment (docs/protocol.md, "Wires"): interfaces and counters, for people to read. */
import type { Connection, Mechanism } from "../../api/gen/connection_pb.js";
import type { EndStats } from "../kernel/stats.ts";
import type { Side, Wire } from "../wire.ts";

/**
 * Writes `<side>_interface` and `<side>_{rx,tx}_{bytes,packets}`, `<side>_drops` into the segment at the connection's index, with
 * the keys and the form of the Go forwarders: `server` is the client's side, `client` the endpoint's, and a forwarder receives
 * what a pod's device sends. The one device of a tunnel speaks for both sides.
 */
export function writeSegmentMetrics(
  { path, mechanism }: Connection,
  clientMechanism: Mechanism,
  wire: Pick<Wire, "client" | "endpoint">,
  stats: readonly EndStats[],
): void {
  const segment = path?.pathSegments[path.index];
  if (segment === undefined || mechanism === undefined) return;
  const nameOf = (side: Wire["client"]) => (side.kind === "kernel" ? side.interfaceName : undefined);
  const [client, endpoint] = [nameOf(wire.client), nameOf(wire.endpoint)];
  const [first] = stats;
  const endOf = (side: Side) => stats.find((end) => end.side === side) ?? (first && mirrored(first));
  segment.metrics = {
    ...segment.metrics,
    server_interface: `${clientMechanism.type}/${client ?? endpoint ?? ""}`,
    client_interface: `${mechanism.type}/${endpoint ?? client ?? ""}`,
    ...countersOf("server", endOf("client")),
    ...countersOf("client", endOf("endpoint")),
  };
}

type Counted = Pick<EndStats, "rxPackets" | "txPackets" | "rxBytes" | "txBytes" | "rxDropped" | "txDropped">;

function mirrored(end: Counted): Counted {
  const { rxPackets, txPackets, rxBytes, txBytes } = end;
  return { ...end, rxPackets: txPackets, txPackets: rxPackets, rxBytes: txBytes, txBytes: rxBytes };
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
