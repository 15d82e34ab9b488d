/** The network between the nodes, as this node sees it. */
import { release as osRelease } from "node:os";
import type { Clock } from "../../sdk/clock.ts";
import { NsmError } from "../../sdk/errors.ts";
import { LruMap } from "../../sdk/lru.ts";
import { formatAddress, parseIp } from "../../sdk/prefix.ts";
import { decodeLink, getLink, probeKind } from "../../sdk/netlink/link.ts";
import { isKernelError } from "../../sdk/netlink/message.ts";
import { decodeRoute, getRoute } from "../../sdk/netlink/route.ts";
import { openNetlink } from "../../sdk/netlink/socket.ts";

/** Largest IP packet towards a node: of the route, else of the device that it leaves by. UNAVAILABLE `no-route`. */
export async function underlayMtu(remoteIp: string): Promise<number> {
  const ip = parseIp(remoteIp);
  if (ip === undefined)
    throw new NsmError("INVALID_ARGUMENT", "bad-address", `node address ${remoteIp}: expected an IP address`);
  using node = openNetlink("route");
  try {
    const route = decodeRoute(await node.get(getRoute(formatAddress(ip))));
    if (route?.mtu !== undefined) return route.mtu;
    return decodeLink(await node.get(getLink({ ifindex: route?.ifindex ?? 0 }))).mtu;
  } catch (error) {
    if (!isKernelError(error)) throw error;
    throw new NsmError("UNAVAILABLE", "no-route", `no way to node ${remoteIp}: ${error.message}`, error);
  }
}

/** How late a wire may notice that the way to a node changed. */
const REMEMBERED_MS = 30_000;

/** The same with a short memory: every refresh of every tunnel asks, and the nodes are few. Failures are not remembered. */
export function rememberMtu(
  ask: (remoteIp: string) => Promise<number>,
  clock: Clock,
): (remoteIp: string) => Promise<number> {
  const known = new LruMap<string, { readonly mtu: number; readonly atMs: number }>(1024);
  return async (remoteIp) => {
    const before = known.get(remoteIp);
    if (before !== undefined && clock.monotonic() - before.atMs < REMEMBERED_MS) return before.mtu;
    const mtu = await ask(remoteIp);
    known.set(remoteIp, { mtu, atMs: clock.monotonic() });
    return mtu;
  };
}

/** True when the kernel can make devices of a kind; it loads the module if it has one. */
export async function kernelKnows(kind: string): Promise<boolean> {
  using node = openNetlink("route");
  const [refusal] = await node.batch([probeKind(kind)]);
  if (isKernelError(refusal, "EPERM")) throw refusal;
  return !isKernelError(refusal, "ENOTSUP");
}

/** Since Linux 6.2 a device that is up may be given another name. */
export function renamesLive(release = osRelease()): boolean {
  const [major = 0, minor = 0] = release.split(/[.-]/).map(Number);
  return major > 6 || (major === 6 && minor >= 2);
}
