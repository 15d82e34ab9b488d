/** Counts netlink requests by a tap device of the kernel (nlmon): what really crosses, not what the code says it sends. */
import { decodeMessages, NLM_F } from "../../../sdk/netlink/message.ts";
import { bindSocket, closeFd, openSocket, receive } from "../../../sdk/native.ts";
import type { Namespace } from "../../support/netns.ts";

const AF_PACKET = 17;
const SOCK_RAW = 3;
/** ETH_P_ALL in network order. */
const EVERYTHING = 0x0300;

/** Requests from programs in the namespaces while `body` ran. Tests of the kernel run one at a time, so they are that test's. */
export async function countRequests(
  namespaces: readonly Namespace[],
  body: () => Promise<void>,
): Promise<number> {
  using stack = new DisposableStack();
  const taps = namespaces.map((ns) => stack.use(openTap(ns)));
  await body();
  return taps.reduce((sum, tap) => sum + tap.requests(), 0);
}

function openTap(ns: Namespace): Disposable & { requests(): number } {
  ns.ip("link add nlmon0 type nlmon");
  ns.ip("link set nlmon0 up");
  const ifindex = Number(/^(\d+):/.exec(ns.ip("-o link show nlmon0"))?.[1]);
  const fd = ns.inside(() => {
    const fd = openSocket(AF_PACKET, SOCK_RAW, EVERYTHING);
    bindSocket(fd, linkAddress(ifindex));
    return fd;
  });
  return {
    requests() {
      let count = 0;
      const buffer = Buffer.alloc(65_536);
      for (let length = receive(fd, buffer); length !== undefined; length = receive(fd, buffer))
        count += decodeMessages(buffer.subarray(0, length)).filter(
          ({ flags }) => flags & NLM_F.REQUEST,
        ).length;
      return count;
    },
    [Symbol.dispose]() {
      closeFd(fd);
      ns.ip("link del nlmon0");
    },
  };
}

/** struct sockaddr_ll */
function linkAddress(ifindex: number): Buffer {
  const address = Buffer.alloc(20);
  address.writeUInt16LE(AF_PACKET, 0);
  address.writeUInt16LE(EVERYTHING, 2);
  address.writeInt32LE(ifindex, 4);
  return address;
}
