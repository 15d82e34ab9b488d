/** A third domain, `floating`: a registry without nodes, beside the router between the clusters. */
import { deviceUp, ipBatch } from "../../cli/demo/commands.ts";
import type { Parts } from "../../cli/demo/parts.ts";
import { namespaceOf } from "../../cli/demo/topology.ts";
import type { Part, Topology } from "../../cli/demo/topology.ts";

export const FLOATING = "floating";
/** Below the run's folder. */
export const FLOATING_SERVICES_FILE = "network-services-of-floating.yaml";
const ADDRESS = "198.18.0.1";
const ROUTER_ADDRESS = "198.18.0.254";
const REGISTRY_URL = `tcp://${ADDRESS}:5002`;

/** As it stands in files of domains. */
export const floatingDomain = { [FLOATING]: { registry: REGISTRY_URL } };

/** Its registry, in the trust domain of the first cluster. */
export function floatingRegistry(make: Parts, services: string | undefined): Part {
  const model = make.daemons.find(({ role }) => role === "registry");
  if (model === undefined) throw new Error("the mesh has no registry");
  return {
    ...model,
    name: `registry-${FLOATING}`,
    place: FLOATING,
    spiffePath: `registry/${FLOATING}`,
    env: {
      NSM_LOG_LEVEL: model.env["NSM_LOG_LEVEL"] ?? "",
      SPIFFE_ENDPOINT_SOCKET: model.env["SPIFFE_ENDPOINT_SOCKET"] ?? "",
      NSM_LISTEN_ON: REGISTRY_URL,
      NSM_MANAGER_IDS: "/proxy/*", // who brings what others register
      ...(services !== undefined && {
        NSM_NETWORK_SERVICES_PATH: `${make.folder}/${FLOATING_SERVICES_FILE}`,
      }),
    },
  };
}

export async function joinFloating({ run }: Topology, env: NodeJS.ProcessEnv): Promise<void> {
  const [own, router] = [namespaceOf(run, FLOATING), namespaceOf(run, "router")];
  await ipBatch([`link add name underlay netns ${own} type veth peer name ${FLOATING} netns ${router}`], env);
  await ipBatch(deviceUp(FLOATING, ROUTER_ADDRESS), env, ["-n", router]);
  await ipBatch([...deviceUp("underlay", ADDRESS), `route add default via ${ROUTER_ADDRESS}`], env, [
    "-n",
    own,
  ]);
}
