/**
 * Which node may speak into which of our VXLAN wires: a table `inet nsm` of nftables in the node's namespace.
 *
 * The kernel finds a VXLAN device by port and VNI alone (RFC 7348 knows no source check), so anybody who may send UDP to the node
 * could speak into a wire whose VNI he guessed. The table drops a packet only when its port and VNI are a wire's of ours and its
 * source is not that wire's peer; other VNIs on the port are not looked at. It exists while there is a VXLAN wire:
 *
 *     chain input { type filter hook input priority -10; udp dport . @th,96,24 @ours jump check }
 *     chain check { ip saddr . udp dport . @th,96,24 @peers4 return; ip6 saddr . … @peers6 return; counter drop }
 */
import { NsmError, messageOf } from "../../sdk/errors.ts";
import type { Attribute } from "../../sdk/netlink/attribute.ts";
import { ipBytes } from "../../sdk/netlink/ip.ts";
import type { VxlanShape } from "../../sdk/netlink/link.ts";
import type { Request } from "../../sdk/netlink/message.ts";
import {
  BATCH_BEGIN,
  BATCH_END,
  IP6_SADDR,
  IP_SADDR,
  UDP_DPORT,
  addBaseChain,
  addChain,
  addElement,
  addRule,
  addSet,
  addTable,
  counter,
  deleteElement,
  deleteTable,
  isInSet,
  loadPayload,
  metaIs,
  rawBits,
  verdict,
} from "../../sdk/netlink/nftables.ts";
import type { NftSet } from "../../sdk/netlink/nftables.ts";
import { openNetlink } from "../../sdk/netlink/socket.ts";
import { oneAtATime } from "../../sdk/one-at-a-time.ts";
import type { NetlinkSocket } from "../../sdk/netlink/socket.ts";

export type FilterEntry = Pick<VxlanShape, "port" | "vni" | "remoteIp">;

/** Disposing leaves the table as it is. */
export interface VxlanFilter extends Disposable {
  /** From now on packets of this port and VNI are taken from this peer only. UNAVAILABLE `vxlan-filter-failed`. */
  allow(wireId: string, entry: FilterEntry): Promise<void>;
  /** Packets of the wire's port and VNI are no business of ours any more. */
  forget(wireId: string): Promise<void>;
}

/** Does all of the requests or none. */
export type Transaction = (requests: readonly Request[]) => Promise<void>;

/**
 * Installs the table for the wires of an earlier life, or removes one that is left over. Throws what the kernel says when it
 * cannot filter.
 */
export async function openVxlanFilter(
  found: ReadonlyMap<string, FilterEntry>,
  kernel?: Transaction,
): Promise<VxlanFilter> {
  using stack = new DisposableStack();
  const transaction = kernel ?? transactionsOn(stack.use(openNetlink("netfilter")));
  const entries = new Map(found);
  const inTurn = oneAtATime();

  /** The table is written as a whole when a step on it is refused, as after `nft flush ruleset`. */
  function run(step: () => readonly Request[]): Promise<void> {
    return inTurn(async () => {
      const requests = step();
      if (requests.length === 0) return;
      try {
        await transaction(requests).catch(() => transaction(tableFor([...entries.values()])));
      } catch (error) {
        throw new NsmError(
          "UNAVAILABLE",
          "vxlan-filter-failed",
          `the source filter of VXLAN could not be changed: ${messageOf(error)}`,
          error,
        );
      }
    });
  }

  // The first transaction proves that the kernel knows every expression, and leaves nothing.
  await transaction([...wholeTable([]), deleteTable(TABLE)]);
  if (entries.size > 0) await transaction(wholeTable([...entries.values()]));

  const resources = stack.move();
  return {
    [Symbol.dispose]: () => resources.dispose(),
    async allow(wireId, entry) {
      await run(() => {
        const before = entries.get(wireId);
        if (before && textOf(before) === textOf(entry)) return [];
        entries.set(wireId, entry);
        if (before === undefined && entries.size === 1) return newTable([entry]);
        return [...(before ? elements(deleteElement, before) : []), ...elements(addElement, entry)];
      });
    },
    async forget(wireId) {
      await run(() => {
        const before = entries.get(wireId);
        if (before === undefined) return [];
        entries.delete(wireId);
        return entries.size === 0 ? [deleteTable(TABLE)] : elements(deleteElement, before);
      });
    },
  };
}

/** On one socket for good: closing one waits until the kernel has freed what transactions removed, tens of milliseconds. */
function transactionsOn(socket: NetlinkSocket): Transaction {
  return (requests) => socket.transaction(BATCH_BEGIN, requests, BATCH_END);
}

const TABLE = "nsm";
const NF_INET_LOCAL_IN = 1;
const IPPROTO_UDP = 17;
const NFPROTO = { IPV4: 2, IPV6: 10 } as const;

const VNI = rawBits("transport", 96, 24);

/** Each part of a key fills whole words: IPv4 address 1, IPv6 address 4, port 1, VNI 1. */
const SETS = {
  ours: { name: "ours", id: 1, keyBytes: 8, parts: [UDP_DPORT, VNI] },
  peers4: { name: "peers4", id: 2, keyBytes: 12, parts: [IP_SADDR, UDP_DPORT, VNI] },
  peers6: { name: "peers6", id: 3, keyBytes: 24, parts: [IP6_SADDR, UDP_DPORT, VNI] },
} as const;

function textOf({ port, vni, remoteIp }: FilterEntry): string {
  return `${port} ${vni} ${remoteIp}`;
}

type ElementRequest = (table: string, set: string, key: Uint8Array) => Request;

function elements(change: ElementRequest, { port, vni, remoteIp }: FilterEntry): Request[] {
  const ours = Buffer.from([port >> 8, port & 255, 0, 0, vni >> 16, (vni >> 8) & 255, vni & 255, 0]);
  const peers = remoteIp.includes(":") ? SETS.peers6 : SETS.peers4;
  return [
    change(TABLE, SETS.ours.name, ours),
    change(TABLE, peers.name, Buffer.concat([ipBytes(remoteIp), ours])),
  ];
}

/** The whole table, or none when there is nothing to filter. */
function tableFor(entries: readonly FilterEntry[]): Request[] {
  return entries.length > 0 ? wholeTable(entries) : [addTable(TABLE), deleteTable(TABLE)];
}

/** Replaces the table: in a transaction there is no moment without it. */
export function wholeTable(entries: readonly FilterEntry[]): Request[] {
  return [addTable(TABLE), deleteTable(TABLE), ...newTable(entries)];
}

function newTable(entries: readonly FilterEntry[]): Request[] {
  return [
    addTable(TABLE, "Network Service Mesh: peers of VXLAN wires"),
    addBaseChain(TABLE, "input", NF_INET_LOCAL_IN, -10),
    addChain(TABLE, "check"),
    ...Object.values(SETS).map((set) => addSet(TABLE, set)),
    addRule(TABLE, "input", [
      ...metaIs("L4PROTO", IPPROTO_UDP),
      ...loadPortAndVni(0),
      isInSet(SETS.ours),
      verdict("jump", "check"),
    ]),
    addRule(TABLE, "check", peerReturns(NFPROTO.IPV4, 12, 4, SETS.peers4)),
    addRule(TABLE, "check", peerReturns(NFPROTO.IPV6, 8, 16, SETS.peers6)),
    addRule(TABLE, "check", [counter, verdict("drop")]),
    ...entries.flatMap((entry) => elements(addElement, entry)),
  ];
}

function peerReturns(family: number, sourceOffset: number, sourceBytes: number, set: NftSet): Attribute[] {
  return [
    ...metaIs("NFPROTO", family),
    ...metaIs("L4PROTO", IPPROTO_UDP),
    loadPayload(0, "network", sourceOffset, sourceBytes),
    ...loadPortAndVni(sourceBytes / 4),
    isInSet(set),
    verdict("return"),
  ];
}

/** Destination port of UDP; the VNI is behind its 8 bytes and 4 of VXLAN's header. */
function loadPortAndVni(register: number): Attribute[] {
  return [loadPayload(register, "transport", 2, 2), loadPayload(register + 1, "transport", 12, 3)];
}
