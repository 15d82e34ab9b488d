/** Throughput of a wire beside the same device made by hand, and of a second such device: what the mesh costs, and the noise. */
import { z } from "zod";
import { probeKernel } from "../../cli/kernel.ts";
import type { Namespace } from "../support/netns.ts";
import { makeBare, makeBareNodes } from "./bare.ts";
import type { Kind } from "./bare.ts";
import { measure, startServer, warmUp } from "./iperf.ts";
import type { IperfServer, Link } from "./iperf.ts";
import { startMesh, wishFor } from "./mesh.ts";
import type { BenchMesh, EndpointOptions } from "./mesh.ts";
import type { Section, Throughput } from "./sections.ts";
import { median, round } from "./statistics.ts";

const ROUNDS = 11;
const SECONDS = 2;

const ENDPOINTS: Readonly<Record<Kind, EndpointOptions>> = {
  veth: { service: "veth", node: 1, payload: "IP", prefix: "172.18.1.0/24" },
  vxlan: { service: "vxlan", node: 2, payload: "ETHERNET", prefix: "172.18.2.0/24" },
  wireguard: { service: "wireguard", node: 2, payload: "IP", prefix: "172.18.3.0/24" },
};

export const throughputSections: readonly Section[] = (["veth", "vxlan", "wireguard"] as const).map(
  (kind) => ({
    name: `throughput.${kind}`,
    async run(launch, figures, say) {
      const endpoint = ENDPOINTS[kind];
      await using mesh = await startMesh(launch, { nodes: endpoint.node, endpoints: [endpoint], clients: 1 });
      const { link: wire, mtu } = await openWire(mesh, endpoint.service);
      await using stack = new AsyncDisposableStack();
      const nodes = stack.use(await makeBareNodes(probeKernel().wireguard === undefined));
      const servers = {
        wire: stack.use(startServer(wire)),
        bare: stack.use(startServer(await makeBare(stack, nodes, kind, 1, mtu))),
        null: stack.use(startServer(await makeBare(stack, nodes, kind, 2, mtu))),
      };
      figures.throughput[kind] = await compare(servers);
      say(`MTU ${mtu}, ${ROUNDS} rounds of ${SECONDS} s`);
    },
  }),
);

/** In each round the three run one after the other, the bare device always in the middle and the order reversed every time. */
async function compare(servers: {
  wire: IperfServer;
  bare: IperfServer;
  null: IperfServer;
}): Promise<Throughput> {
  for (const server of Object.values(servers)) await warmUp(server);
  const rounds: Record<keyof typeof servers, number>[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const measured = { wire: 0, bare: 0, null: 0 };
    const order = ["wire", "bare", "null"] as const;
    for (const which of round % 2 === 0 ? order : order.toReversed())
      measured[which] = await measure(servers[which], SECONDS);
    rounds.push(measured);
  }
  return {
    wire: round(median(rounds.map((each) => each.wire))),
    bare: round(median(rounds.map((each) => each.bare))),
    ratio: round(median(rounds.map((each) => each.wire / each.bare)), 3),
    null: round(median(rounds.map((each) => each.null / each.bare)), 3),
  };
}

async function openWire(mesh: BenchMesh, service: string): Promise<{ link: Link; mtu: number }> {
  const [client] = mesh.clients;
  if (client === undefined) throw new Error("a mesh without clients");
  const { failed } = await client.call("hold", wishFor(service), 1, 1);
  if (failed.length > 0) throw new Error(`no wire: ${failed[0]}`);
  const to = mesh.endpointNs(service);
  const far = deviceOf(to);
  return { link: { from: client.ns, to, address: far.address }, mtu: far.mtu };
}

const Devices = z.array(
  z.object({
    ifname: z.string(),
    mtu: z.number(),
    addr_info: z.array(z.object({ family: z.string(), local: z.string() })),
  }),
);

/** The one device of a pod beside loopback. */
function deviceOf(pod: Namespace): { address: string; mtu: number } {
  const devices = Devices.parse(JSON.parse(pod.ip("-json address show")));
  const device = devices.find(({ ifname }) => ifname !== "lo");
  const address = device?.addr_info.find(({ family }) => family === "inet")?.local;
  if (device === undefined || address === undefined) throw new Error("the pod has no device with an address");
  return { address, mtu: device.mtu };
}
