/** `nsm describe wire`: all that managers and forwarders of its path tell of one wire. */
import { create } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { DescribeWireRequestSchema, Wires } from "../api/gen/admin_pb.js";
import type { WireDescription } from "../api/gen/admin_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { openMeshClient } from "./client.ts";
import type { ManagerAccess, MeshClient } from "./client.ts";
import { describeText } from "./describe-text.ts";
import { ExitCode } from "./exit-code.ts";
import { collect } from "./get-collect.ts";
import { outputWidth, writeDocument } from "./get-print.ts";
import { managersOf, otherForwarders, wiresOf } from "./get-sources.ts";
import { compare, expiryOf, wireId, wireRow } from "./get-wires.ts";
import type { WireRow } from "./get-wires.ts";
import { untilInterrupted } from "./interrupted.ts";
import { printableLines } from "./printable.ts";

/** Less of an id is not looked for. */
const SHORTEST_ID = 4;

export interface DescribeOptions {
  readonly output: "text" | "json" | "yaml";
  readonly allNodes: boolean;
  readonly manager: string | undefined;
}

/** Of `nsm describe wire -o json`. Times are RFC 3339; addresses have their prefix length. */
export interface DescribedWire extends WireRow {
  readonly hops: readonly {
    readonly name: string;
    readonly id: string;
    /** When its token ends. */
    readonly expires: string | null;
    /** `VXLAN/nsm-1`; only forwarders say so. */
    readonly clientInterface: string | null;
    readonly endpointInterface: string | null;
  }[];
  readonly labels: Readonly<Record<string, string>>;
  readonly mechanismParameters: Readonly<Record<string, string>>;
  readonly routes: readonly {
    readonly of: "client" | "endpoint";
    readonly prefix: string;
    readonly via: string;
  }[];
  readonly policies: readonly {
    readonly from: string;
    readonly protocol: string;
    readonly destinationPorts: string;
    readonly sourcePorts: string;
    readonly routes: readonly { readonly prefix: string; readonly via: string }[];
  }[];
  readonly dns: readonly { readonly servers: readonly string[]; readonly domains: readonly string[] }[];
  readonly counters: readonly Counters[];
  /** Oldest first. */
  readonly events: readonly {
    readonly time: string;
    readonly manager: string;
    readonly what: string;
    readonly why: string;
    readonly count: number;
  }[];
  /** What could not be found out. */
  readonly faults: readonly string[];
}

/** Seen from the pod that has the interface. */
export interface Counters {
  readonly forwarder: string;
  readonly side: string;
  readonly interface: string;
  readonly received: Traffic;
  readonly sent: Traffic;
}

interface Traffic {
  readonly bytes: number;
  readonly packets: number;
  readonly dropped: number;
  readonly errors: number;
}

/** Exit code 0; 4 when no wire that this user may see has the id. An id may be that of any hop, or its first 4 or more characters. */
export async function runDescribeWire(asked: string, options: DescribeOptions): Promise<number> {
  using interruption = untilInterrupted();
  const { signal } = interruption;
  try {
    await using client = await openMeshClient({ manager: options.manager, env: process.env, signal });
    const managers = await managersOf(client, options.allNodes, signal);
    const wire = await describeWire(client, managers, asked, signal);
    if (options.output === "text") process.stdout.write(describeText(wire, Date.now(), outputWidth()));
    else writeDocument(options.output, wire);
    return ExitCode.ok;
  } catch (error) {
    if (signal.aborted) return ExitCode.interrupted;
    if (!(error instanceof NsmError) || error.code !== "NOT_FOUND") throw error;
    process.stderr.write(`nsm describe: ${printableLines(error.message)}\n`);
    return ExitCode.notFound;
  }
}

async function describeWire(
  client: MeshClient,
  managers: readonly ManagerAccess[],
  asked: string,
  signal: AbortSignal,
): Promise<DescribedWire | ClosedWire> {
  const found = await findWire(managers, asked, signal);
  // A wire that is closed is in no list; whoever knows its whole id may still ask what happened to it.
  if (found === undefined && asked.length < SHORTEST_ID)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "short-id",
      `${asked} is too short: give ${SHORTEST_ID} or more characters of the id that nsm get wires shows`,
    );
  if (found === undefined) return await describeClosed(client.manager, asked, signal);
  const { connection, manager } = found;
  const told = await askManagers(client, manager, connection, signal);
  return described(connection, told);
}

/** What a manager remembers of a wire that is closed. */
export interface ClosedWire {
  readonly id: string;
  readonly events: DescribedWire["events"];
}

async function describeClosed(manager: ManagerAccess, id: string, signal: AbortSignal): Promise<ClosedWire> {
  const description = await manager.call(
    Wires.method.describeWire,
    create(DescribeWireRequestSchema, { id }),
    signal,
  );
  return { id, events: eventsOf([{ manager: manager.url, description }]) };
}

interface Found {
  readonly connection: Connection;
  readonly manager: ManagerAccess;
}

/** Throws INVALID_ARGUMENT `ambiguous-wire` when more than one fits. */
async function findWire(
  managers: readonly ManagerAccess[],
  asked: string,
  signal: AbortSignal,
): Promise<Found | undefined> {
  const lists = await Promise.all(managers.map((manager) => listOf(manager, signal)));
  const all = lists.flat();
  const exact = all.filter(({ connection }) => idsOf(connection).includes(asked));
  const begun = all.filter(
    ({ connection }) => asked.length >= SHORTEST_ID && idsOf(connection).some((id) => id.startsWith(asked)),
  );
  const fitting = exact.length > 0 ? exact : begun;
  const wires = Map.groupBy(fitting, ({ connection }) => wireId(connection));
  if (wires.size > 1)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "ambiguous-wire",
      `${asked} fits ${wires.size} wires: name one of ${[...wires.keys()].toSorted(compare).join(", ")}`,
    );
  // The one nearest to the client knows most.
  return fitting.toSorted((a, b) => (a.connection.path?.index ?? 0) - (b.connection.path?.index ?? 0))[0];
}

async function listOf(manager: ManagerAccess, signal: AbortSignal): Promise<Found[]> {
  const wires = collect(wiresOf(manager));
  await wires.run({ watch: false, signal, onChange: () => undefined, onFault: () => undefined });
  return wires.values().map((connection) => ({ connection, manager }));
}

function idsOf({ id, path }: Connection): string[] {
  return [id, ...(path?.pathSegments.map((segment) => segment.id) ?? [])];
}

/** Segments from a manager to the other node's endpoint: it, forwarder, manager, forwarder, endpoint. */
const LONGEST_LOCAL = 5;

interface Told {
  readonly manager: string;
  readonly description?: WireDescription;
  readonly fault?: string;
}

/** Each manager of the path knows what its forwarder made; those of other nodes are found by the registration of their forwarder. */
async function askManagers(
  client: MeshClient,
  asked: ManagerAccess,
  connection: Connection,
  signal: AbortSignal,
): Promise<Told[]> {
  const { index = 0, pathSegments = [] } = connection.path ?? {};
  const ask = async (manager: ManagerAccess, { name, id }: { name: string; id: string }): Promise<Told> => {
    try {
      const request = create(DescribeWireRequestSchema, { id });
      return { manager: name, description: await manager.call(Wires.method.describeWire, request, signal) };
    } catch (error) {
      if (signal.aborted) throw error;
      const isForeign = error instanceof NsmError && error.code === "UNIMPLEMENTED";
      return {
        manager: name,
        fault: `${name}: ${isForeign ? "it keeps no events and counters" : messageOf(error)}`,
      };
    }
  };
  const near = ask(asked, pathSegments[index] ?? { name: asked.url, id: connection.id });
  if (pathSegments.length < index + LONGEST_LOCAL) return [await near];
  // Without the registry the near half is told.
  const others = await otherForwarders(client, signal).catch((error: unknown) => messageOf(error));
  if (typeof others === "string")
    return [await near, { manager: "", fault: `managers of other nodes: ${others}` }];
  return await Promise.all([
    near,
    ...pathSegments.flatMap((segment, at) => {
      const url = others.get(pathSegments[at + 1]?.name ?? "");
      return at > index && url !== undefined ? [ask(client.at(url), segment)] : [];
    }),
  ]);
}

function described(connection: Connection, told: readonly Told[]): DescribedWire {
  const { context, path, labels, mechanism } = connection;
  const { ipContext, dnsContext } = context ?? {};
  const routesOf = (of: "client" | "endpoint", routes: readonly { prefix: string; nextHop: string }[] = []) =>
    routes.map(({ prefix, nextHop }) => ({ of, prefix, via: nextHop }));
  return {
    ...wireRow(connection),
    hops: (path?.pathSegments ?? []).map((segment) => ({
      name: segment.name,
      id: segment.id,
      expires: instantText(expiryOf(segment)),
      // Named after the halves of a forwarder: its server serves the client's side.
      clientInterface: segment.metrics["server_interface"] ?? null,
      endpointInterface: segment.metrics["client_interface"] ?? null,
    })),
    labels,
    mechanismParameters: mechanism?.parameters ?? {},
    routes: [...routesOf("client", ipContext?.srcRoutes), ...routesOf("endpoint", ipContext?.dstRoutes)],
    policies: (ipContext?.policies ?? []).map(({ from, proto, dstPort, srcPort, routes }) => ({
      from,
      protocol: proto,
      destinationPorts: dstPort,
      sourcePorts: srcPort,
      routes: routes.map(({ prefix, nextHop }) => ({ prefix, via: nextHop })),
    })),
    dns: (dnsContext?.configs ?? []).map(({ dnsServerIps, searchDomains }) => ({
      servers: dnsServerIps,
      domains: searchDomains,
    })),
    counters: told.flatMap(({ description }) => description?.interfaces.map(countersOf) ?? []),
    events: eventsOf(told),
    faults: told.flatMap(({ fault, description }) => [
      ...(fault === undefined ? [] : [fault]),
      ...(description?.faults ?? []),
    ]),
  };
}

/** 64-bit numbers of the wire as numbers: 9 PB are exact. */
function countersOf(from: WireDescription["interfaces"][number]): Counters {
  const traffic = (bytes: bigint, packets: bigint, dropped: bigint, errors: bigint) => ({
    bytes: Number(bytes),
    packets: Number(packets),
    dropped: Number(dropped),
    errors: Number(errors),
  });
  return {
    forwarder: from.forwarder,
    side: from.side,
    interface: from.name,
    received: traffic(from.rxBytes, from.rxPackets, from.rxDropped, from.rxErrors),
    sent: traffic(from.txBytes, from.txPackets, from.txDropped, from.txErrors),
  };
}

function eventsOf(told: readonly Told[]): DescribedWire["events"] {
  return told
    .flatMap(({ manager, description }) =>
      (description?.events ?? []).map(({ time, what, why, count }) => ({
        time: instantText(time === undefined ? undefined : timestampMs(time)) ?? "",
        manager,
        what,
        why,
        count,
      })),
    )
    .toSorted((a, b) => compare(a.time, b.time));
}

function instantText(ms: number | undefined): string | null {
  return ms === undefined ? null : new Date(ms).toISOString();
}
