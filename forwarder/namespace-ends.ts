/**
 * Tells when a network namespace of a wire has ended (rtnetlink(7), RTM_DELNSID): the kernel says so a moment after its last
 * process, and nothing here keeps it alive meanwhile.
 */
import type { Logger } from "../sdk/log.ts";
import { bindSocket, closeFd, openSocket, receive, setSocketOption, watchReadable } from "../sdk/native.ts";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { decodeMessages, isKernelError } from "../sdk/netlink/message.ts";
import {
  RTNLGRP_NSID,
  decodeEndedNamespace,
  decodeNamespaceId,
  dumpNamespaceIds,
  getNamespaceId,
  newNamespaceId,
} from "../sdk/netlink/namespace-id.ts";
import { openNetlink } from "../sdk/netlink/socket.ts";
import { openNetns } from "./netns.ts";
import type { NetnsRef } from "./netns.ts";
import type { Side } from "./wire.ts";

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const NETLINK_ROUTE = 0;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const DATAGRAM_BYTES = 16 * 1024;

export interface NamespaceEnds extends Disposable {
  /**
   * Calls back once when the open namespace has ended. The node's namespace gets a number for it, which the kernel takes back
   * with either of the two.
   */
  watch(netnsFd: number, onEnded: () => void): Promise<Disposable>;
}

/** State: one socket, and who waits for which namespace. */
export function openNamespaceEnds(log: Logger): NamespaceEnds {
  const waiting = new Map<number, Set<() => void>>();
  const fd = openEventSocket();
  const events = watchReadable(fd, () => readEvents(fd, end, () => void catchUp()));
  let isOpen = true;

  function end(id: number): void {
    const callbacks = waiting.get(id);
    waiting.delete(id);
    for (const onEnded of callbacks ?? []) onEnded();
  }
  /** Events were lost: whoever has no number any more has ended. */
  async function catchUp(): Promise<void> {
    try {
      using socket = openNetlink("route");
      const ids = new Set((await socket.dump(dumpNamespaceIds())).map(decodeNamespaceId));
      if (isOpen) for (const id of waiting.keys()) if (!ids.has(id)) end(id);
    } catch (err) {
      log.warn({ err }, "the ends of network namespaces were missed; their wires end with their leases");
    }
  }
  return {
    async watch(netnsFd, onEnded) {
      const id = await numberOf(netnsFd);
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
      events[Symbol.dispose]();
      closeFd(fd);
    },
  };
}

/** Watches the namespaces of a wire's ends; one that cannot be watched ends the wire with its lease, as ever. */
export async function watchEnds(
  ends: NamespaceEnds,
  wire: readonly { readonly side: Side; readonly netns: NetnsRef }[],
  log: Logger,
  onEnded: (side: Side) => void,
): Promise<Disposable> {
  const stack = new DisposableStack();
  for (const { side, netns } of wire) {
    try {
      using open = openNetns(netns);
      stack.use(await ends.watch(open.fd, () => onEnded(side)));
    } catch (err) {
      log.info({ netns: String(netns.inode), err }, "the end of a network namespace cannot be watched");
    }
  }
  return stack;
}

function openEventSocket(): number {
  const fd = openSocket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  try {
    const address = Buffer.alloc(12); // struct sockaddr_nl: the kernel chooses the port
    address.writeUInt16LE(AF_NETLINK, 0);
    bindSocket(fd, address);
    setSocketOption(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_NSID);
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

function readEvents(fd: number, onEnded: (id: number) => void, onLost: () => void): void {
  const buffer = Buffer.allocUnsafe(DATAGRAM_BYTES);
  for (;;) {
    try {
      const length = receive(fd, buffer);
      if (length === undefined) return;
      for (const message of decodeMessages(buffer.subarray(0, length))) {
        const id = decodeEndedNamespace(message);
        if (id !== undefined) onEnded(id);
      }
    } catch (error) {
      // The socket's buffer ran over; the next read goes on behind the gap.
      if (!(error instanceof NsmError) || error.reason !== "enobufs")
        throw new Error(`reading the ends of namespaces: ${messageOf(error)}`, { cause: error });
      onLost();
    }
  }
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
