/** rtnetlink messages of counters (linux/if_link.h, RTM_GETSTATS): what a device has sent and received, and nothing else of it. */
import { decodeAttributes } from "./attribute.ts";
import { NLM_F } from "./message.ts";
import type { Message, Request } from "./message.ts";

const RTM_GETSTATS = 94;
const IFLA_STATS_LINK_64 = 1;

/** Packets and bytes since the device was made, as the device counts them: `rx` is what arrived for its own pod. */
export interface LinkCounters {
  readonly rxPackets: number;
  readonly txPackets: number;
  readonly rxBytes: number;
  readonly txBytes: number;
  readonly rxErrors: number;
  readonly txErrors: number;
  readonly rxDropped: number;
  readonly txDropped: number;
}

/** Of one device. */
export function getStats(ifindex: number): Request {
  return { doing: `get counters of link ${ifindex}`, type: RTM_GETSTATS, flags: 0, body: statsMsg(ifindex) };
}

/** Of all devices of the socket's namespace. */
export function dumpStats(): Request {
  return { doing: "dump counters", type: RTM_GETSTATS, flags: NLM_F.DUMP, body: statsMsg(0) };
}

/** Of an RTM_NEWSTATS message; undefined for one without these counters. */
export function decodeStats({ body }: Message): { ifindex: number; counters: LinkCounters } | undefined {
  const stats = decodeAttributes(body.subarray(12)).bytes(IFLA_STATS_LINK_64);
  return stats && { ifindex: body.readUInt32LE(4), counters: decodeCounters(stats) };
}

/** struct rtnl_link_stats64, which only ever grows at its end; what a kernel does not count is 0. */
export function decodeCounters(stats: Buffer): LinkCounters {
  const at = (index: number) =>
    stats.length >= 8 * (index + 1) ? Number(stats.readBigUInt64LE(8 * index)) : 0;
  return {
    rxPackets: at(0),
    txPackets: at(1),
    rxBytes: at(2),
    txBytes: at(3),
    rxErrors: at(4),
    txErrors: at(5),
    rxDropped: at(6),
    txDropped: at(7),
  };
}

/** struct if_stats_msg */
function statsMsg(ifindex: number): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt32LE(ifindex, 4);
  header.writeUInt32LE(1 << (IFLA_STATS_LINK_64 - 1), 8);
  return header;
}
