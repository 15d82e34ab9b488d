/** How many wires a daemon knows, by state and mechanism. */
import { State } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import type { MonitorStore } from "../elements/monitor.ts";
import { mechanismOfPath } from "../mechanisms/of-path.ts";
import type { Sample } from "./meter.ts";
import { meters } from "./meters.ts";

/** Whatever else a peer says is OTHER: labels are ours. */
const MECHANISMS = new Set(["KERNEL", "VXLAN", "WIREGUARD"]);

/** `connections`: one entry a wire, undefined for one that is asked for. */
export function trackWires(connections: () => Iterable<Connection | undefined>): Disposable {
  return meters.wires.track(() => countWires(connections()));
}

export function trackStore(store: Pick<MonitorStore, "ids" | "get">): Disposable {
  return trackWires(() => [...store.ids()].map((id) => store.get(id)));
}

export function countWires(connections: Iterable<Connection | undefined>): Sample<"state" | "mechanism">[] {
  const counts = new Map<string, { labels: { state: string; mechanism: string }; value: number }>();
  for (const connection of connections) {
    const state = connection === undefined ? "NONE" : (State[connection.state] ?? "OTHER");
    const said = mechanismOfPath(connection?.path?.pathSegments ?? []);
    const mechanism = MECHANISMS.has(said) ? said : "OTHER";
    const key = `${state} ${mechanism}`;
    const known = counts.get(key) ?? { labels: { state, mechanism }, value: 0 };
    known.value++;
    counts.set(key, known);
  }
  return [...counts.values()];
}
