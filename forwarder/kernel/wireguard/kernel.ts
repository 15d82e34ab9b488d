/** WireGuard by the kernel's own device: born in the pod, its UDP sockets in the node's namespace. */
import { decodeFamily, getFamily } from "../../../sdk/netlink/generic.ts";
import { deleteLink, newWireguard } from "../../../sdk/netlink/link.ts";
import type { Request } from "../../../sdk/netlink/message.ts";
import { isKernelError } from "../../../sdk/netlink/message.ts";
import { openNetlink } from "../../../sdk/netlink/socket.ts";
import type { WireguardShape } from "../../plan/plan.ts";
import type { WireguardDriver } from "./driver.ts";
import { decodeDevice, getDevice, setBeat, setDevice, setNewPeer, setPlace } from "./messages.ts";

/** The kernel module is loaded by then. Needs CAP_NET_ADMIN in the node's namespace. */
export async function openKernelWireguard(): Promise<WireguardDriver> {
  const family = await findFamily();

  /** The kernel looks for the device in the namespace of the socket. */
  async function execute(netnsFd: number, ...requests: readonly Request[]): Promise<void> {
    using socket = openNetlink("generic", netnsFd);
    await socket.execute(...requests);
  }
  const configure = (netnsFd: number, ifindex: number, shape: WireguardShape) =>
    execute(netnsFd, setDevice(family, ifindex, shape));

  return {
    mode: "kernel",
    linkKind: "wireguard",
    async create(_wireId, device, shape) {
      using node = openNetlink("route");
      await node.execute(newWireguard(device));
      try {
        await configure(device.netnsFd, device.ifindex, shape);
      } catch (error) {
        using pod = openNetlink("route", device.netnsFd);
        await pod.batch([deleteLink(device.ifindex)]);
        throw error;
      }
    },
    async read(_wireId, netns, ifindex) {
      using socket = openNetlink("generic", netns.fd);
      try {
        const [message] = await socket.dump(getDevice(family, ifindex));
        return message && decodeDevice(message);
      } catch (error) {
        if (isKernelError(error, "ENODEV", "ENOTSUP")) return undefined;
        throw error;
      }
    },
    configure: (_wireId, netns, ifindex, shape) => configure(netns.fd, ifindex, shape),
    renewPeer: (_wireId, netns, ifindex, peer) => execute(netns.fd, setNewPeer(family, ifindex, peer)),
    movePeer: (_wireId, netns, ifindex, peer) =>
      execute(netns.fd, setPlace(family, ifindex, peer), ...setBeat(family, ifindex, peer.remotePublicKey)),
    beat: (_wireId, netns, ifindex, { remotePublicKey }) =>
      execute(netns.fd, ...setBeat(family, ifindex, remotePublicKey)),
    // The socket is bound when the device is set up, which fails if the port is busy.
    ready: () => Promise.resolve(),
    forget: () => Promise.resolve(),
  };
}

async function findFamily(): Promise<number> {
  using socket = openNetlink("generic");
  return decodeFamily(await socket.get(getFamily("wireguard")));
}
