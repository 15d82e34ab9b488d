/**
 * Which node may speak into which of our VXLAN wires: a table `inet nsm` of nftables in the node's namespace.
 *
 * The kernel finds a VXLAN device by port and VNI alone (RFC 7348 knows no source check), so anybody who may send UDP to the node
 * could speak into a wire whose VNI he guessed. The table drops a packet only when its port and VNI are a wire's of ours and its
 * source is not that wire's peer; other VNIs on the port are not looked at. It exists while there is a VXLAN wire.
 */
import { NsmError, messageOf } from "../sdk/errors.ts";
import type { VxlanShape } from "./netlink/link.ts";
import { runProgram } from "./run-program.ts";

export type FilterEntry = Pick<VxlanShape, "port" | "vni" | "remoteIp">;

export interface VxlanFilter {
  /** From now on packets of this port and VNI are taken from this peer only. UNAVAILABLE `vxlan-filter-failed`. */
  allow(wireId: string, entry: FilterEntry): Promise<void>;
  /** Packets of the wire's port and VNI are no business of ours any more. */
  forget(wireId: string): Promise<void>;
}

const TABLE = "inet nsm";
/** VNI: 24 bits, behind 8 bytes of UDP and 4 of VXLAN header. */
const VNI = "@th,96,24";

/**
 * Installs the table for the wires of an earlier life, or removes one that is left over. Throws FAILED_PRECONDITION
 * `program-missing` or INTERNAL `program-failed` when this node cannot filter.
 */
export async function openVxlanFilter(
  found: ReadonlyMap<string, FilterEntry>,
  nft: (script: string) => Promise<unknown> = (script) => runProgram("nft", ["-f", "-"], script),
): Promise<VxlanFilter> {
  const entries = new Map(found);
  let last: Promise<unknown> = Promise.resolve();

  /** One script at a time; the table is written as a whole when a step on it fails, as after `nft flush ruleset`. */
  function run(step: () => string): Promise<void> {
    const result = last.then(async () => {
      const script = step();
      if (script === "") return;
      try {
        await nft(script).catch(() => nft(wholeTable(entries.values())));
      } catch (error) {
        throw new NsmError(
          "UNAVAILABLE",
          "vxlan-filter-failed",
          `the source filter of VXLAN could not be changed: ${messageOf(error)}`,
          error,
        );
      }
    });
    last = result.catch(() => undefined);
    return result;
  }

  // The first transaction proves that kernel and program know every expression, and leaves nothing.
  await nft(`${wholeTable([])}delete table ${TABLE}\n`);
  if (entries.size > 0) await nft(wholeTable(entries.values()));

  return {
    async allow(wireId, entry) {
      await run(() => {
        const before = entries.get(wireId);
        if (before && textOf(before) === textOf(entry)) return "";
        entries.set(wireId, entry);
        if (entries.size === 1) return wholeTable([entry]);
        return (before ? elements("delete", before) : "") + elements("add", entry);
      });
    },
    async forget(wireId) {
      await run(() => {
        const before = entries.get(wireId);
        if (before === undefined) return "";
        entries.delete(wireId);
        return entries.size === 0 ? `table ${TABLE}\ndelete table ${TABLE}\n` : elements("delete", before);
      });
    },
  };
}

function textOf({ port, vni, remoteIp }: FilterEntry): string {
  return `${port} ${vni} ${remoteIp}`;
}

function elements(verb: "add" | "delete", { port, vni, remoteIp }: FilterEntry): string {
  const peers = remoteIp.includes(":") ? "peers6" : "peers4";
  return (
    `${verb} element ${TABLE} ours { ${port} . ${vni} }\n` +
    `${verb} element ${TABLE} ${peers} { ${remoteIp} . ${port} . ${vni} }\n`
  );
}

/** Replaces the table in one transaction: there is no moment without it. */
export function wholeTable(entries: Iterable<FilterEntry>): string {
  return `table ${TABLE}
delete table ${TABLE}
table ${TABLE} {
  comment "Network Service Mesh: peers of VXLAN wires"
  set ours { typeof udp dport . ${VNI}; }
  set peers4 { typeof ip saddr . udp dport . ${VNI}; }
  set peers6 { typeof ip6 saddr . udp dport . ${VNI}; }
  chain input {
    type filter hook input priority -10; policy accept;
    udp dport . ${VNI} @ours jump check
  }
  chain check {
    ip saddr . udp dport . ${VNI} @peers4 return
    ip6 saddr . udp dport . ${VNI} @peers6 return
    counter drop
  }
}
${[...entries].map((entry) => elements("add", entry)).join("")}`;
}
