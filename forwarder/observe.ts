/** What the kernel has of a wire's device: read only. */
import type { FoundEnd } from "./diff.ts";
import { decodeLink, getLink } from "./netlink/link.ts";
import type { Link } from "./netlink/link.ts";
import { isKernelError } from "./netlink/message.ts";
import {
  NSM_PROTOCOL,
  SCOPE,
  decodeAddress,
  decodeNeighbor,
  decodeRoute,
  dumpAddresses,
  dumpNeighbors,
  dumpRoutes,
} from "./netlink/route.ts";
import type { NetlinkSocket } from "./netlink/socket.ts";

/** A link of the socket's namespace, with counters if asked; undefined when there is none. */
export async function readLink(
  socket: NetlinkSocket,
  which: { ifindex: number } | { name: string },
  counters = false,
): Promise<Link | undefined> {
  try {
    return decodeLink(await socket.get(getLink(which, counters)));
  } catch (error) {
    if (isKernelError(error, "ENODEV")) return undefined;
    throw error;
  }
}

/** A device with what is configured on it. */
export async function observeEnd(socket: NetlinkSocket, link: Link): Promise<FoundEnd> {
  const { ifindex } = link;
  const addresses = (await socket.dump(dumpAddresses(ifindex))).map(decodeAddress);
  const routes = [
    ...(await socket.dump(dumpRoutes(4, ifindex))),
    ...(await socket.dump(dumpRoutes(6, ifindex))),
  ].map(decodeRoute);
  const neighbors = (await socket.dump(dumpNeighbors())).map(decodeNeighbor);
  return {
    link,
    addresses: addresses
      .filter((found) => found?.ifindex === ifindex && found.scope === SCOPE.UNIVERSE)
      .filter(isFound),
    routes: routes
      .filter((found) => found?.ifindex === ifindex && found.protocol === NSM_PROTOCOL)
      .filter(isFound),
    neighbors: neighbors
      .filter((found) => found?.ifindex === ifindex && found.permanent && found.protocol === NSM_PROTOCOL)
      .filter(isFound),
  };
}

function isFound<T>(value: T | undefined): value is T {
  return value !== undefined;
}
