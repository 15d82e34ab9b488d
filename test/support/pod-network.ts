/** What a pod has before any wire: an interface of the cluster's network, with addresses and default routes of both families. */
import { eventually } from "./netns.ts";
import type { Namespace } from "./netns.ts";

/** eth0 with 10.244.1.5/24 via 10.244.1.1 and fd44::5/64 via fd44::1; its other end stays in the pod and is silent. */
export async function joinPodNetwork(ns: Namespace): Promise<void> {
  ns.ip("link add eth0 type veth peer name host");
  for (const device of ["host", "eth0"]) {
    ns.ip(`link set ${device} addrgenmode none`);
    ns.ip(`link set ${device} up`);
  }
  ns.ip("addr add 10.244.1.5/24 dev eth0");
  ns.ip("addr add fd44::5/64 dev eth0 nodad");
  ns.ip("route add default via 10.244.1.1");
  ns.ip("-6 route add default via fd44::1");
  await eventually("the pod's network has settled", () => {
    const routes = ns.ip("-6 route show table all");
    const devices = ["eth0", "host"].filter((device) => routes.includes(`multicast ff00::/8 dev ${device}`));
    const isLocal = routes.includes("local fd44::5 dev eth0");
    return ns.ip("link show eth0").includes("state UP") && devices.length === 2 && isLocal;
  });
}
