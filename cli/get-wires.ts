/** Wires as people see them: connections of monitor streams turned into rows. Pure. */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { State } from "../api/gen/connection_pb.js";
import type { Connection, PathSegment } from "../api/gen/connection_pb.js";
import { mechanismOfPath } from "../sdk/mechanisms/of-path.ts";
import { earliestExpiry } from "../sdk/path.ts";
import type { Column } from "./table.ts";

/** Of `nsm get wires -o json`. */
export interface WireRow {
  /** The connection's id at the client's manager: the same wherever the wire is looked at, and nobody else's. */
  readonly id: string;
  /** Path segment name of the client. */
  readonly client: string;
  readonly service: string;
  readonly endpoint: string;
  readonly state: keyof typeof State;
  /** What joins the two ends: KERNEL on one node, else the tunnel. Empty when no forwarder says so. */
  readonly mechanism: string;
  /** In the client's namespace; empty when the manager that was asked is not the client's. */
  readonly interface: string;
  readonly addresses: readonly string[];
  readonly peerAddresses: readonly string[];
  readonly mtu: number;
  readonly payload: string;
  /** Names of the path segments. */
  readonly path: readonly string[];
  /** RFC 3339; when the wire ends unless it is refreshed. */
  readonly expires: string | null;
}

export function wireRow(connection: Connection): WireRow {
  const { ipContext, MTU = 0 } = connection.context ?? {};
  const path = connection.path?.pathSegments ?? [];
  const expiresMs = connection.path === undefined ? undefined : earliestExpiry(connection.path);
  return {
    id: wireId(connection),
    client: path[0]?.name ?? "",
    service: connection.networkService,
    endpoint: connection.networkServiceEndpointName,
    state: stateName(connection.state),
    mechanism: mechanismOfPath(path),
    interface: clientInterface(connection),
    addresses: ipContext?.srcIpAddrs ?? [],
    peerAddresses: ipContext?.dstIpAddrs ?? [],
    mtu: MTU,
    payload: connection.payload,
    path: path.map(({ name }) => name),
    expires: expiresMs === undefined ? null : new Date(expiresMs).toISOString(),
  };
}

/** See `WireRow.id`. */
export function wireId(connection: Connection): string {
  return connection.path?.pathSegments[1]?.id ?? connection.id;
}

function stateName(state: State): keyof typeof State {
  switch (state) {
    case State.UP:
      return "UP";
    case State.DOWN:
      return "DOWN";
    case State.REFRESH_REQUESTED:
      return "REFRESH_REQUESTED";
    case State.RESELECT_REQUESTED:
      return "RESELECT_REQUESTED";
  }
}

function clientInterface({ mechanism, path }: Connection): string {
  return path?.index === 1 && mechanism?.type === "KERNEL" ? (mechanism.parameters["name"] ?? "") : "";
}

/** Connections at several managers may be the same wire: the one nearest to the client tells most. */
export function wireRows(connections: readonly Connection[]): WireRow[] {
  const nearest = new Map<string, Connection>();
  for (const connection of connections) {
    const known = nearest.get(wireId(connection));
    if (known === undefined || indexOf(connection) < indexOf(known))
      nearest.set(wireId(connection), connection);
  }
  return [...nearest.values()].map(wireRow).toSorted(byClient);
}

function indexOf({ path }: Connection): number {
  return path?.index ?? 0;
}

function byClient(a: WireRow, b: WireRow): number {
  return compare(a.client, b.client) || compare(a.service, b.service) || compare(a.id, b.id);
}

export function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export const wireColumns: readonly Column<WireRow>[] = [
  { title: "WIRE", value: ({ id }) => shortId(id) },
  { title: "CLIENT", value: ({ client }) => client },
  { title: "SERVICE", value: ({ service }) => service },
  { title: "ENDPOINT", value: ({ endpoint }) => endpoint },
  { title: "STATE", value: ({ state }) => state },
  { title: "MECHANISM", value: ({ mechanism }) => mechanism || "?" },
  { title: "ADDRESSES", value: addressesOf },
];

export const wideWireColumns: readonly Column<WireRow>[] = [
  { title: "WIRE", value: ({ id }) => id },
  ...wireColumns.slice(1),
  { title: "INTERFACE", value: (wire) => wire.interface || "-" },
  { title: "MTU", value: ({ mtu }) => String(mtu) },
  { title: "PAYLOAD", value: ({ payload }) => payload },
  { title: "EXPIRES", value: ({ expires }) => expires ?? "never" },
  { title: "PATH", value: ({ path }) => path.join(" → ") },
];

/** Enough of a random id to tell it from others; `nsm describe wire` takes it. */
function shortId(id: string): string {
  return id.slice(0, 8);
}

function addressesOf({ addresses, peerAddresses }: WireRow): string {
  const plain = (list: readonly string[]) => list.map((address) => address.split("/")[0]).join(",") || "none";
  return `${plain(addresses)} → ${plain(peerAddresses)}`;
}

/** Of `nsm get clients -o json`. */
export interface ClientRow {
  readonly client: string;
  readonly node: string;
  readonly pod: string;
  readonly wires: number;
  readonly up: number;
  readonly services: readonly string[];
}

/** Whoever begins the path of a wire. Clients of other nodes are listed by their own manager only. */
export function clientRows(connections: readonly Connection[]): ClientRow[] {
  const clients = Map.groupBy(
    connections.filter(({ path }) => path?.index === 1),
    ({ path, labels }) => `${path?.pathSegments[0]?.name}\n${labels["nodeName"] ?? ""}`,
  );
  return [...clients.values()]
    .map((wires) => ({
      client: wires[0]?.path?.pathSegments[0]?.name ?? "",
      node: wires[0]?.labels["nodeName"] ?? "",
      pod: wires[0]?.labels["podName"] ?? "",
      wires: wires.length,
      up: wires.filter(({ state }) => state === State.UP).length,
      services: [...new Set(wires.map(({ networkService }) => networkService))].toSorted(compare),
    }))
    .toSorted((a, b) => compare(a.client, b.client) || compare(a.node, b.node));
}

export const clientColumns: readonly Column<ClientRow>[] = [
  { title: "CLIENT", value: ({ client }) => client },
  { title: "NODE", value: ({ node }) => node || "-" },
  { title: "WIRES", value: ({ wires, up }) => `${up}/${wires} up` },
  { title: "SERVICES", value: ({ services }) => services.join(",") },
];

export const wideClientColumns: readonly Column<ClientRow>[] = [
  ...clientColumns.slice(0, 2),
  { title: "POD", value: ({ pod }) => pod || "-" },
  ...clientColumns.slice(2),
];

/** When the token of a path segment ends, milliseconds since 1970. */
export function expiryOf({ expires }: PathSegment): number | undefined {
  return expires === undefined ? undefined : timestampMs(expires);
}
