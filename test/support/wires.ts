/** Wires as the kernel has them, and traffic over them: for end-to-end tests. Read with `ip`, never with our own netlink code. */
import { closeSync, openSync } from "node:fs";
import { z } from "zod";
import { parseEstablished } from "../../cli/demo/wires.ts";
import type { Established } from "../../cli/demo/wires.ts";
import { parseAlias } from "../../forwarder/plan/alias.ts";
import { ping } from "../../sdk/icmp.ts";
import type { PingResult } from "../../sdk/icmp.ts";
import type { NamedNamespace } from "./netns.ts";
import type { LogLine } from "./process.ts";
import { startEcho, startStream } from "./udp.ts";

const Links = z.array(
  z.object({
    ifindex: z.number(),
    ifname: z.string(),
    mtu: z.number(),
    address: z.string().optional(),
    ifalias: z.string().optional(),
    linkinfo: z.object({ info_kind: z.string().optional() }).optional(),
    addr_info: z.array(z.object({ local: z.string().optional(), prefixlen: z.number(), scope: z.string() })),
  }),
);
const Routes = z.array(z.object({ dst: z.string(), gateway: z.string().optional(), protocol: z.string() }));
const Neighbors = z.array(z.object({ dst: z.string(), lladdr: z.string().optional() }));

/** A device that is not the loopback's or the underlay's. */
export interface Device {
  readonly name: string;
  readonly ifindex: number;
  readonly kind: string;
  readonly mtu: number;
  readonly mac: string | undefined;
  readonly alias: string;
  /** Global ones, with prefix length. */
  readonly addresses: readonly string[];
}

/** All devices but `lo` and `underlay`. */
export function devicesIn(ns: NamedNamespace): readonly Device[] {
  return Links.parse(JSON.parse(ns.ip("-j -details address show")))
    .filter(({ ifname }) => ifname !== "lo" && ifname !== "underlay")
    .map((link) => ({
      name: link.ifname,
      ifindex: link.ifindex,
      kind: link.linkinfo?.info_kind ?? "",
      mtu: link.mtu,
      mac: link.address,
      alias: link.ifalias ?? "",
      addresses: link.addr_info.flatMap(({ local, prefixlen, scope }) =>
        local === undefined || scope !== "global" ? [] : [`${local}/${prefixlen}`],
      ),
    }));
}

/** Fails when there is none of that name. */
export function deviceIn(ns: NamedNamespace, name: string): Device {
  const devices = devicesIn(ns);
  const found = devices.find((device) => device.name === name);
  if (found !== undefined) return found;
  throw new Error(
    `${ns.name} has no ${name}, only ${devices.map((device) => device.name).join(", ") || "none"}`,
  );
}

/** Destinations routed to a device, `<prefix>` or `<prefix> via <gateway>`, without those that the kernel adds by itself. */
export function routesOf(ns: NamedNamespace, device: string): readonly string[] {
  return ["-4", "-6"]
    .flatMap((family) =>
      Routes.parse(JSON.parse(ns.ip(`-j ${family} route show dev ${device}`).trim() || "[]")),
    )
    .filter(({ protocol }) => protocol !== "kernel")
    .map(({ dst, gateway }) => (gateway === undefined ? dst : `${dst} via ${gateway}`))
    .sort();
}

/** Permanent neighbours of a device, `<address> <mac>`. */
export function neighborsOf(ns: NamedNamespace, device: string): readonly string[] {
  return Neighbors.parse(JSON.parse(ns.ip(`-j neighbour show nud permanent dev ${device}`).trim() || "[]"))
    .map(({ dst, lladdr = "" }) => `${dst} ${lladdr}`)
    .sort();
}

/** So many pings from a namespace, 20 ms apart. */
export async function pingFrom(ns: NamedNamespace, target: string, count = 5): Promise<PingResult> {
  const netnsFd = openSync(`/run/netns/${ns.name}`, "r");
  try {
    return await ping({ netnsFd, source: undefined, target, count, intervalMs: 20, timeoutMs: 3000 });
  } finally {
    closeSync(netnsFd);
  }
}

/** Between which addresses packets go; lengths of prefixes are cut. */
export interface Way {
  readonly from: NamedNamespace;
  readonly source: string;
  readonly to: NamedNamespace;
  readonly target: string;
}

/** A numbered UDP packet every two milliseconds each way, and a ping every 20, until stopped. */
export function startTraffic({ from, source, to, target }: Way): {
  stop(): Promise<{ sent: number; lost: number }>;
} {
  const plain = (address: string) => address.split("/")[0] ?? "";
  const echo = startEcho(to, plain(target));
  const stream = startStream(from, plain(source), plain(target), echo.port);
  return {
    async stop() {
      try {
        return await stream.stop();
      } finally {
        echo[Symbol.dispose]();
      }
    },
  };
}

/** What a client says of a wire that is established. Throws for a line of another kind. */
export function wireOf(line: LogLine): Established {
  const wire = parseEstablished(JSON.stringify(line));
  if (wire === undefined) throw new Error(`no wire that can be read: ${JSON.stringify(line)}`);
  return wire;
}

/** The first of a wire's addresses, without its length. */
export function hostOf([address = ""]: readonly string[]): string {
  return address.split("/")[0] ?? "";
}

/**
 * The device of a wire, whichever process of the client asked for it, which is another one after a restart. Throws when the end in a
 * client's pod does not say which, or another end does.
 */
export function withoutOwner(device: Device): Device {
  const mark = parseAlias(device.alias);
  if ((mark?.side === "client") !== (mark?.owner !== undefined))
    throw new Error(`${device.name} has the alias ${device.alias}`);
  return { ...device, alias: JSON.stringify({ ...mark, owner: undefined }) };
}
