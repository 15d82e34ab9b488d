/** The network between the nodes, as this node sees it. */
import { NsmError } from "../sdk/errors.ts";
import { parseIp } from "./netlink/ip.ts";
import { decodeLink, getLink, probeKind } from "./netlink/link.ts";
import { isKernelError } from "./netlink/message.ts";
import { decodeRoute, getRoute } from "./netlink/route.ts";
import { openNetlink } from "./netlink/socket.ts";

/** Largest IP packet towards a node: of the route, else of the device that it leaves by. UNAVAILABLE `no-route`. */
export async function underlayMtu(remoteIp: string): Promise<number> {
  const ip = parseIp(remoteIp);
  if (ip === undefined)
    throw new NsmError("INVALID_ARGUMENT", "bad-address", `node address ${remoteIp}: expected an IP address`);
  using node = openNetlink("route");
  try {
    const route = decodeRoute(await node.get(getRoute(ip)));
    if (route?.mtu !== undefined) return route.mtu;
    return decodeLink(await node.get(getLink({ ifindex: route?.ifindex ?? 0 }))).mtu;
  } catch (error) {
    if (!isKernelError(error)) throw error;
    throw new NsmError("UNAVAILABLE", "no-route", `no way to node ${ip}: ${error.message}`, error);
  }
}

/** True when the kernel can make devices of a kind; it loads the module if it has one. */
export async function kernelKnows(kind: string): Promise<boolean> {
  using node = openNetlink("route");
  const [refusal] = await node.batch([probeKind(kind)]);
  if (isKernelError(refusal, "EPERM")) throw refusal;
  return !isKernelError(refusal, "ENOTSUP");
}
