/** What the kernel has of a wire's device: read only. */
import type { FoundEnd } from "../plan/diff.ts";
import type { Surroundings } from "../plan/guard.ts";
import type { Family } from "../../sdk/prefix.ts";
import { decodeLink, getLink } from "../../sdk/netlink/link.ts";
import type { Link } from "../../sdk/netlink/link.ts";
import { isKernelError } from "../../sdk/netlink/message.ts";
import {
  NSM_PROTOCOL,
  RT_TABLE_MAIN,
  SCOPE,
  decodeAddress,
  decodeNeighbor,
  decodeRoute,
  dumpAddresses,
  dumpAllRoutes,
  dumpNeighbors,
  dumpRoutes,
} from "../../sdk/netlink/route.ts";
import type { FoundRoute } from "../../sdk/netlink/route.ts";
import type { NetlinkSocket } from "../../sdk/netlink/socket.ts";

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
  const neighbors = (await socket.dump(dumpNeighbors(ifindex))).map(decodeNeighbor);
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

/** What a namespace has beside the device `own`, with routes of these families. */
export async function observeSurroundings(
  socket: NetlinkSocket,
  own: number | undefined,
  families: readonly Family[],
): Promise<Surroundings> {
  const addresses = (await socket.dump(dumpAddresses(0))).map(decodeAddress).filter(isFound);
  const routes: FoundRoute[] = [];
  for (const family of families) {
    const found = (await socket.dump(dumpAllRoutes(family, RT_TABLE_MAIN))).map(decodeRoute).filter(isFound);
    routes.push(...found.filter(({ prefix, ifindex }) => prefix.family === family && ifindex !== own));
  }
  return {
    addresses: addresses.filter(({ ifindex, scope }) => ifindex !== own && scope === SCOPE.UNIVERSE),
    routes,
  };
}

function isFound<T>(value: T | undefined): value is T {
  return value !== undefined;
}
