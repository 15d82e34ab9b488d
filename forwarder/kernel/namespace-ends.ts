/**
 * Tells when a network namespace of a wire has ended (rtnetlink(7), RTM_DELNSID): the kernel says so a moment after its last
 * process, and nothing here keeps it alive meanwhile.
 */
import type { Logger } from "../../sdk/log.ts";
import { isKernelError } from "../../sdk/netlink/message.ts";
import {
  RTNLGRP_NSID,
  decodeEndedNamespace,
  decodeNamespaceId,
  dumpNamespaceIds,
  getNamespaceId,
  newNamespaceId,
} from "../../sdk/netlink/namespace-id.ts";
import { openNetlink } from "../../sdk/netlink/socket.ts";
import { openEvents } from "./events.ts";
import type { Netns } from "./netns.ts";
import type { Side } from "../wire.ts";

export interface NamespaceEnds extends Disposable {
  /**
   * Calls back once when the open namespace has ended. The node's namespace gets a number for it, which the kernel takes back
   * with either of the two. `identity` tells the namespace from all others for ever: then the number is asked for once.
   */
  watch(netnsFd: number, onEnded: () => void, identity?: string): Promise<Disposable>;
}

/** State: one socket, who waits for which namespace, and the numbers of namespaces that are known to live. */
export function openNamespaceEnds(log: Logger): NamespaceEnds {
  const waiting = new Map<number, Set<() => void>>();
  const numbers = new Map<string, number>();
  const identities = new Map<number, string>();
  const events = openEvents({
    groups: [RTNLGRP_NSID],
    what: "the ends of namespaces",
    onMessage: (message) => {
      const id = decodeEndedNamespace(message);
      if (id !== undefined) end(id);
    },
    onLost: () => void catchUp(),
  });
  let isOpen = true;

  function end(id: number): void {
    const callbacks = waiting.get(id);
    waiting.delete(id);
    const identity = identities.get(id);
    identities.delete(id);
    if (identity !== undefined) numbers.delete(identity);
    for (const onEnded of callbacks ?? []) onEnded();
  }
  /** Events were lost: whoever has no number any more has ended. */
  async function catchUp(): Promise<void> {
    try {
      using socket = openNetlink("route");
      const ids = new Set((await socket.dump(dumpNamespaceIds())).map(decodeNamespaceId));
      if (!isOpen) return;
      for (const id of [...waiting.keys(), ...identities.keys()]) if (!ids.has(id)) end(id);
    } catch (err) {
      log.warn({ err }, "the ends of network namespaces were missed; their wires end with their leases");
    }
  }
  return {
    async watch(netnsFd, onEnded, identity) {
      const known = identity === undefined ? undefined : numbers.get(identity);
      const id = known ?? (await numberOf(netnsFd));
      if (known === undefined && isOpen) {
        events.drain(); // the end of whoever had the number before is no news of this namespace
        if (identity !== undefined) {
          numbers.set(identity, id);
          identities.set(id, identity);
        }
      }
      const callbacks = waiting.get(id) ?? new Set();
      waiting.set(id, callbacks);
      callbacks.add(onEnded);
      return {
        [Symbol.dispose]() {
          callbacks.delete(onEnded);
          if (callbacks.size === 0 && waiting.get(id) === callbacks) waiting.delete(id);
        },
      };
    },
    [Symbol.dispose]() {
      if (!isOpen) return;
      isOpen = false;
      waiting.clear();
      numbers.clear();
      identities.clear();
      events[Symbol.dispose]();
    },
  };
}

/** Watches the namespaces of a wire's ends; one that cannot be watched ends the wire with its lease, as ever. */
export async function watchEnds(
  ends: NamespaceEnds,
  wire: readonly { readonly side: Side; readonly netns: Netns; readonly identity: string }[],
  log: Logger,
  onEnded: (side: Side) => void,
): Promise<Disposable> {
  const stack = new DisposableStack();
  for (const { side, netns, identity } of wire) {
    // An inode alone is given to the next namespace.
    const lasting = identity.startsWith("cookie-") ? identity : undefined;
    try {
      stack.use(await ends.watch(netns.fd, () => onEnded(side), lasting));
    } catch (err) {
      log.info({ netns: String(netns.inode), err }, "the end of a network namespace cannot be watched");
    }
  }
  return stack;
}

/** Gives the namespace a number unless it has one. */
async function numberOf(netnsFd: number): Promise<number> {
  using socket = openNetlink("route");
  const known = decodeNamespaceId(await socket.get(getNamespaceId(netnsFd)));
  if (known !== undefined) return known;
  try {
    await socket.execute(newNamespaceId(netnsFd));
  } catch (error) {
    // A veth pair into it made one at the same moment.
    if (!isKernelError(error, "EEXIST")) throw error;
  }
  const given = decodeNamespaceId(await socket.get(getNamespaceId(netnsFd)));
  if (given === undefined) throw new Error("the kernel gave a namespace no id");
  return given;
}
