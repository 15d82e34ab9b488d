/** What the kernel tells by itself, to whoever is in a multicast group (rtnetlink(7)). */
import {
  bindSocket,
  closeFd,
  openSocket,
  receive,
  setSocketOption,
  watchReadable,
} from "../../sdk/native.ts";
import { NsmError, messageOf } from "../../sdk/errors.ts";
import { decodeMessages } from "../../sdk/netlink/message.ts";
import type { Message } from "../../sdk/netlink/message.ts";

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const NETLINK_ROUTE = 0;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const DATAGRAM_BYTES = 16 * 1024;

export interface EventsOptions {
  readonly groups: readonly number[];
  /** For the text of an error. */
  readonly what: string;
  readonly onMessage: (message: Message) => void;
  /** More was told than the socket holds: some of it is not known. */
  readonly onLost: () => void;
}

export interface Events extends Disposable {
  /** Takes what was told until now. */
  drain(): void;
}

/** Of the namespace that this process lives in. State: one socket. */
export function openEvents(options: EventsOptions): Events {
  const fd = openSocket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  try {
    const address = Buffer.alloc(12); // struct sockaddr_nl: the kernel chooses the port
    address.writeUInt16LE(AF_NETLINK, 0);
    bindSocket(fd, address);
    for (const group of options.groups) setSocketOption(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  const drain = () => readAll(fd, options);
  const readable = watchReadable(fd, drain);
  let isOpen = true;
  return {
    drain,
    [Symbol.dispose]() {
      if (!isOpen) return;
      isOpen = false;
      readable[Symbol.dispose]();
      closeFd(fd);
    },
  };
}

function readAll(fd: number, { what, onMessage, onLost }: EventsOptions): void {
  const buffer = Buffer.allocUnsafe(DATAGRAM_BYTES);
  for (;;) {
    try {
      const length = receive(fd, buffer);
      if (length === undefined) return;
      for (const message of decodeMessages(buffer.subarray(0, length))) onMessage(message);
    } catch (error) {
      // The socket's buffer ran over; the next read goes on behind the gap.
      if (!(error instanceof NsmError) || error.reason !== "enobufs")
        throw new Error(`reading ${what}: ${messageOf(error)}`, { cause: error });
      onLost();
    }
  }
}
