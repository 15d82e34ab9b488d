/** What the client and the kernel say of the wires, and the pings over them. */
import { closeSync, openSync } from "node:fs";
import * as z from "zod";
import { ping } from "../../sdk/icmp.ts";
import type { PingResult } from "../../sdk/icmp.ts";
import { ipJson, namespaceFile } from "./commands.ts";
import type { MechanismName } from "./topology.ts";

/** A wire as it stands in the report of a run. */
export interface WireReport {
  readonly client: string;
  readonly service: string;
  readonly endpoint: string;
  readonly mechanism: MechanismName | "?";
  readonly interface: string;
  readonly addresses: readonly string[];
  /** Addresses at the endpoint's side. */
  readonly peers: readonly string[];
  readonly path: readonly string[];
  readonly mtu: number;
  /** Median of the pings; null when none returned. */
  readonly rttMs: number | null;
  readonly pingsSent: number;
  readonly pingsReceived: number;
}

const PINGS = 5;
const PING_INTERVAL_MS = 50;
const PING_TIMEOUT_MS = 2000;
/** So many of the pings must return. */
export const PINGS_NEEDED = 3;

/** The client logs one such line for each wire that it has. */
const Established = z.object({
  msg: z.literal("wire established"),
  connection: z.string(),
  service: z.string(),
  nse: z.string(),
  interface: z.string(),
  /** At the endpoint's side, with prefix length. */
  peerAddresses: z.array(z.string()),
  /** Names of the path segments. */
  path: z.array(z.string()),
});
export type Established = z.infer<typeof Established>;

/** Undefined for any other line. */
export function parseEstablished(line: string): Established | undefined {
  if (!line.includes('"wire established"')) return undefined;
  return Established.parse(JSON.parse(line));
}

/** What a client says of a wire. */
export type WireNews =
  | (Established & { readonly state: "up" })
  | { readonly state: "healing" | "moving" | "closed"; readonly connection: string };

const STATES = new Map([
  ["wire is down, healing", "healing"],
  ["wire is wanted elsewhere, moving", "moving"],
  ["wire closed", "closed"],
] as const);

const Changed = z.object({
  msg: z.enum([...STATES.keys()]),
  connection: z.string(),
});

/** Undefined for lines that are not about the state of a wire. */
export function parseWireNews(line: string): WireNews | undefined {
  const wire = parseEstablished(line);
  if (wire !== undefined) return { ...wire, state: "up" };
  if (![...STATES.keys()].some((words) => line.includes(`"${words}"`))) return undefined;
  const { msg, connection } = Changed.parse(JSON.parse(line));
  const state = STATES.get(msg);
  return state === undefined ? undefined : { state, connection };
}

/** A device as the kernel has it. */
export interface WireDevice {
  readonly name: string;
  /** By the kind of the device: the client's own view is KERNEL for every wire. */
  readonly mechanism: MechanismName | "?";
  readonly mtu: number;
  /** Own addresses with prefix length. */
  readonly addresses: readonly string[];
}

const MECHANISM_OF_KIND = new Map<string, MechanismName>([
  ["veth", "KERNEL"],
  ["wireguard", "WIREGUARD"],
  ["tun", "WIREGUARD"], // user-space WireGuard
  ["vxlan", "VXLAN"],
]);

const Links = z.array(
  z.object({
    ifname: z.string(),
    mtu: z.number(),
    linkinfo: z.object({ info_kind: z.string().optional() }).optional(),
    addr_info: z.array(z.object({ local: z.string().optional(), prefixlen: z.number(), scope: z.string() })),
  }),
);
/** The `nsm-*` devices of a namespace. */
export async function readDevices(namespace: string, env: NodeJS.ProcessEnv): Promise<readonly WireDevice[]> {
  const links = Links.parse(await ipJson(["-n", namespace, "-details", "address", "show"], env));
  return links
    .filter((link) => link.ifname.startsWith("nsm-"))
    .map((link) => ({
      name: link.ifname,
      mechanism: MECHANISM_OF_KIND.get(link.linkinfo?.info_kind ?? "") ?? "?",
      mtu: link.mtu,
      addresses: link.addr_info
        .filter((info) => info.scope === "global")
        .flatMap((info) => (info.local === undefined ? [] : [`${info.local}/${info.prefixlen}`])),
    }));
}

const Indexes = z.array(z.object({ ifname: z.string(), ifindex: z.number() }));

/** Of all devices of a namespace but loopback, by name. */
export async function readDeviceIndexes(
  namespace: string,
  env: NodeJS.ProcessEnv,
): Promise<ReadonlyMap<string, number>> {
  const links = Indexes.parse(await ipJson(["-n", namespace, "link", "show"], env));
  return new Map(
    links.filter(({ ifname }) => ifname !== "lo").map(({ ifname, ifindex }) => [ifname, ifindex]),
  );
}

/** Pings the endpoint over a wire, from the wire's own address. A wire without addresses loses all. */
export async function pingWire(
  namespace: string,
  wire: Established,
  device: WireDevice,
  signal: AbortSignal,
  onReply: () => void,
): Promise<PingResult> {
  const target = wire.peerAddresses[0]?.split("/")[0];
  const source = device.addresses[0]?.split("/")[0];
  if (target === undefined) return { sent: PINGS, received: 0, rttsMs: [] };
  const netnsFd = openSync(namespaceFile(namespace), "r");
  try {
    return await ping({
      netnsFd,
      source,
      target,
      count: PINGS,
      intervalMs: PING_INTERVAL_MS,
      timeoutMs: PING_TIMEOUT_MS,
      signal,
      onReply,
    });
  } finally {
    closeSync(netnsFd);
  }
}

/** The middle of the round-trip times; undefined when there is none. */
function medianOf(values: readonly number[]): number | undefined {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

export function reportOf(
  client: string,
  wire: Established,
  device: WireDevice,
  { sent, received, rttsMs }: PingResult,
): WireReport {
  const rttMs = medianOf(rttsMs);
  return {
    client,
    service: wire.service,
    endpoint: wire.nse,
    mechanism: device.mechanism,
    interface: device.name,
    addresses: device.addresses,
    peers: wire.peerAddresses,
    path: wire.path,
    mtu: device.mtu,
    rttMs: rttMs === undefined ? null : Math.round(rttMs * 1000) / 1000,
    pingsSent: sent,
    pingsReceived: received,
  };
}
