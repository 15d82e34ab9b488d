/** In which network namespace each wire's client lives: whoever calls from another one is a stranger (docs/protocol.md, "Ownership"). */
import type { CallContext } from "../sdk/chain.ts";
import type { RefuseStranger } from "../sdk/elements/server-chain.ts";
import { NsmError } from "../sdk/errors.ts";
import { NO_PEER_PID, PEER_PID } from "../sdk/mechanisms/kernel.ts";
import type { FoundDevice } from "./dataplane.ts";
import { netnsOfProcess } from "./namespaces.ts";

export interface ClientNamespaces {
  /**
   * Refuses Request and Close of an existing wire from another namespace than it was made for: a manager that has restarted
   * cannot tell the owner from somebody who copied the path. What the manager decides by itself names no process and passes.
   * Throws PERMISSION_DENIED `foreign-connection`.
   */
  readonly refuseStranger: RefuseStranger;
  keep(id: string, inode: bigint): void;
  drop(id: string): void;
}

/** What the data plane found of an earlier life. */
interface Found {
  found(wireId: string): readonly Pick<FoundDevice, "side" | "netns">[];
}

/** State: the namespace per connection. Those of an earlier life of this forwarder are read from their devices. */
export function createClientNamespaces(
  dataplane: Found,
  isManager: (ctx: CallContext) => boolean,
): ClientNamespaces {
  const inodes = new Map<string, bigint>();
  const inodeOf = (id: string) =>
    inodes.get(id) ?? dataplane.found(id).find(({ side }) => side === "client")?.netns.inode;
  return {
    refuseStranger(connection, ctx, offers = []) {
      const known = inodeOf(connection.id);
      if (known === undefined || !isManager(ctx)) return;
      const named = [connection.mechanism, ...offers].map((each) => each?.parameters[PEER_PID] ?? "");
      for (const pid of new Set(named.filter((text) => text !== "" && text !== NO_PEER_PID))) {
        if (netnsOfProcess(Number(pid), undefined).inode === known) continue;
        throw new NsmError(
          "PERMISSION_DENIED",
          "foreign-connection",
          `connection ${connection.id} belongs to another network namespace: request a new one with a path of your own segment alone`,
        );
      }
    },
    keep: (id, inode) => void inodes.set(id, inode),
    drop: (id) => void inodes.delete(id),
  };
}
