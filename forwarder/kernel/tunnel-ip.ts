/** The node's own address on the underlay where nobody configured one. */
import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { NsmError } from "../../sdk/errors.ts";

/** The first address of the device that the IPv4 default route leaves by. FAILED_PRECONDITION `no-tunnel-ip` when there is none. */
export function defaultTunnelIp(): string {
  const device = defaultRouteDevice(readFileSync("/proc/net/route", "utf8"));
  const addresses = networkInterfaces()[device ?? ""] ?? [];
  const best =
    addresses.find(({ family }) => family === "IPv4") ?? addresses.find(({ scopeid }) => scopeid === 0);
  if (best !== undefined) return best.address;
  throw new NsmError(
    "FAILED_PRECONDITION",
    "no-tunnel-ip",
    "this node has no default route to take its underlay address from: set NSM_TUNNEL_IP to the address that other nodes reach",
  );
}

/** Name of the device of the default route with the least metric, from the text of `/proc/net/route` (proc(5)). */
export function defaultRouteDevice(routes: string): string | undefined {
  const defaults = routes
    .split("\n")
    .slice(1)
    .map((line) => line.split("\t"))
    .filter(([, destination, , , , , , mask]) => destination === "00000000" && mask === "00000000")
    .map(([name, , , , , , metric]) => ({ name, metric: Number(metric) }));
  return defaults.toSorted((a, b) => a.metric - b.metric)[0]?.name;
}
