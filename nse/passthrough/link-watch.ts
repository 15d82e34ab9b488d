/** Tells of every change of a device in the own network namespace (rtnetlink(7), RTNLGRP_LINK). */
import { bindSocket, closeFd, openSocket, receive, watchReadable } from "../../sdk/native.ts";

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const NETLINK_ROUTE = 0;
const RTMGRP_LINK = 1;
const DATAGRAM_BYTES = 64 * 1024;

/** `onChange` is called once for what came together; an overrun counts as a change. */
export function watchLinks(onChange: () => void): Disposable {
  const fd = openSocket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  const buffer = Buffer.allocUnsafe(DATAGRAM_BYTES);
  const drain = () => {
    try {
      while (receive(fd, buffer) !== undefined);
    } catch {
      // ENOBUFS: events were lost. That there were some is all that we want to know.
    }
    onChange();
  };
  // struct sockaddr_nl. A socket without an address of its own (0 here: the kernel chooses one) is told of nothing.
  const address = Buffer.alloc(12);
  address.writeUInt16LE(AF_NETLINK, 0);
  address.writeUInt32LE(RTMGRP_LINK, 8);
  bindSocket(fd, address);
  const watch = watchReadable(fd, drain);
  return {
    [Symbol.dispose]() {
      watch[Symbol.dispose]();
      closeFd(fd);
    },
  };
}
