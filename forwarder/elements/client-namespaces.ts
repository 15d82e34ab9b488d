/** In which network namespace each wire's client lives: whoever calls from another one is a stranger (docs/protocol.md, "Ownership"). */
import type { CallContext } from "../../sdk/chain.ts";
import type { RefuseStranger } from "../../sdk/elements/server-chain.ts";
import { NsmError } from "../../sdk/errors.ts";
import { NO_PEER_PID, PEER_PID } from "../../sdk/mechanisms/kernel.ts";
import type { FoundDevice, NetnsRef } from "../dataplane.ts";
import { netnsOfProcess } from "./namespaces.ts";
import { identified } from "../kernel/netns.ts";

export interface ClientNamespaces {
  /**
   * Refuses Request and Close of an existing wire from another namespace than it was made for: a manager that has restarted
   * cannot tell the owner from somebody who copied the path. What the manager decides by itself names no process and passes.
   * Throws PERMISSION_DENIED `foreign-connection`.
   */
  readonly refuseStranger: RefuseStranger;
  /** Whose namespace it is, and by which process that was proven. */
  keep(id: string, netns: NetnsRef): void;
  drop(id: string): void;
}

/** What the data plane found of an earlier life. */
interface Found {
  found(wireId: string): readonly Pick<FoundDevice, "side" | "netns">[];
}

/**
 * State: the namespace per connection. Those of an earlier life of this forwarder are read from their devices. `identify` adds to a
 * reference what tells the namespace from a later one of the same inode; undefined when it is gone.
 */
export function createClientNamespaces(
  dataplane: Found,
  isManager: (ctx: CallContext) => boolean,
  identify: (ref: NetnsRef) => NetnsRef | undefined = identified,
): ClientNamespaces {
  const owners = new Map<string, NetnsRef>();
  const ownerOf = (id: string) =>
    owners.get(id) ?? dataplane.found(id).find(({ side }) => side === "client")?.netns;
  return {
    refuseStranger(connection, ctx, offers = []) {
      const known = ownerOf(connection.id);
      if (known === undefined || !isManager(ctx)) return;
      const named = [connection.mechanism, ...offers].map((each) => each?.parameters[PEER_PID] ?? "");
      for (const pid of new Set(named.filter((text) => text !== "" && text !== NO_PEER_PID))) {
        if (isOf(known, Number(pid), identify)) continue;
        throw new NsmError(
          "PERMISSION_DENIED",
          "foreign-connection",
          `connection ${connection.id} belongs to another network namespace: request a new one with a path of your own segment alone`,
        );
      }
    },
    keep(id, netns) {
      const known = owners.get(id);
      // Of a refresh it has been compared when it arrived.
      if (known?.pid === netns.pid && known.inode === netns.inode && known.identity !== undefined) return;
      owners.set(id, identify(netns) ?? netns);
    },
    drop: (id) => void owners.delete(id),
  };
}

/** The process that asked last may have ended meanwhile: a Close in its name is still its own. */
function isOf(known: NetnsRef, pid: number, identify: (ref: NetnsRef) => NetnsRef | undefined): boolean {
  try {
    const netns = netnsOfProcess(pid, undefined);
    if (netns.inode !== known.inode) return false;
    // Every refresh comes by here: that both numbers were given anew, to one process, is not looked for.
    if (pid === known.pid || known.identity === undefined) return true;
    return identify(netns)?.identity === known.identity;
  } catch (error) {
    if (pid === known.pid && error instanceof NsmError && error.reason === "netns-gone") return true;
    throw error;
  }
}
