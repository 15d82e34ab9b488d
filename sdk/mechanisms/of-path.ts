/** What joins the two ends of a wire, by what the forwarders of its path say (docs/protocol.md, "Wires"). Pure. */
import type { PathSegment } from "../../api/gen/connection_pb.js";

/** KERNEL on one node, else the tunnel between two: `VXLAN`. Empty when no forwarder says so. The word of a peer. */
export function mechanismOfPath(path: readonly Pick<PathSegment, "metrics">[]): string {
  const types = path
    .flatMap(({ metrics }) => [metrics["client_interface"], metrics["server_interface"]])
    .flatMap((text) => (text === undefined ? [] : [text.split("/")[0] ?? ""]));
  return types.find((type) => type !== "KERNEL") ?? types[0] ?? "";
}
