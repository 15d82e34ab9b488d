/** UDP ports in use in the node's namespace, by /proc/net/udp and udp6 (proc(5)): the address field ends in the port, in hex. */
import { readFileSync } from "node:fs";
import { errnoOf } from "../../sdk/errors.ts";

export function busyUdpPorts(): ReadonlySet<number> {
  return new Set(
    ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"].flatMap((path) => parseUdp(read(path))),
  );
}

/** Port numbers of a table. */
export function parseUdp(table: string): number[] {
  return [...table.matchAll(/^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) /gm)].map(([, port = "0"]) =>
    Number.parseInt(port, 16),
  );
}

/** Empty where the kernel has no such protocol. */
function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return "";
    throw error;
  }
}
