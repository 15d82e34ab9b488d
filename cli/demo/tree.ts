/**
 * The wires of a run as a tree, by the cluster and the client that asked for them:
 *
 *     east
 *     ├─ client      nsm-1  KERNEL     0.27 ms  ══ nse-1
 *     │              nsm-2  WIREGUARD  0.67 ms  ══ nse-2
 *     └─ web-client  nsm-1  healing             ╌╌ west ╌╌ web-1
 */
import type { ClusterName, MechanismName } from "./topology.ts";

export interface WireState {
  readonly client: string;
  /** Id of the connection. */
  readonly connection: string;
  readonly interface: string;
  /** Names of the path segments, the client's first. */
  readonly path: readonly string[];
  readonly state: "up" | "healing" | "moving";
  readonly mechanism?: MechanismName | "?";
  readonly rttMs?: number | null;
}

/** Daemons on the way, which are no ends of wires. */
const DAEMON = /^(nsmgr|forwarder|proxy)-/;

/** Lines no wider than `width`. `cluster` is that of the clients; undefined in a mesh that is alone. */
export function wireTree(
  wires: readonly WireState[],
  cluster: ClusterName | undefined,
  width: number,
): readonly string[] {
  if (wires.length === 0) return [];
  const clients = [...new Set(wires.map(({ client }) => client))];
  const rows = clients.flatMap((client, i) => {
    const isLast = i === clients.length - 1;
    const own = wires.filter((wire) => wire.client === client);
    return own.map((wire, n) => [
      n === 0 ? `${isLast ? "└" : "├"}─ ${client}` : isLast ? "" : "│",
      wire.interface,
      ...figuresOf(wire),
      waypoints(wire.path)
        .map((name) => `${wire.state === "up" ? "══" : "╌╌"} ${name}`)
        .join(" "),
    ]);
  });
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  "));
  return [cluster ?? "wires", ...lines].map((line) =>
    line.length > width ? `${line.slice(0, width - 1)}…` : line.trimEnd(),
  );
}

/** Endpoints on the way, and the cluster where it enters another one. */
function waypoints(path: readonly string[]): readonly string[] {
  const border = path.findLast((name) => name.startsWith("proxy-"));
  return path
    .slice(1)
    .flatMap((name) => (name === border ? [name.slice("proxy-".length)] : DAEMON.test(name) ? [] : [name]));
}

/** How it is made and how fast it answers, as far as that is known. */
function figuresOf({ state, mechanism, rttMs }: WireState): readonly [string, string] {
  if (state !== "up") return [state, ""];
  return [mechanism ?? "up", rttMs === undefined || rttMs === null ? "" : `${rttMs.toFixed(2)} ms`];
}
