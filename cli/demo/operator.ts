/** The `nsm` command as the operator of a cluster of a run calls it. */
import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { NsmError } from "../../sdk/errors.ts";
import { selfCommand } from "../package-root.ts";
import { markedEnvironment } from "./down.ts";
import { identityUrl, managerUrl, proxyAdminUrl } from "./topology.ts";
import type { ClusterName, Topology } from "./topology.ts";

export interface Said {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Asks the cluster's proxy, or the manager of its first node. The caller must be registered (registrations.ts). Ends with the signal. */
export async function runAsOperator(
  { run, folder, sites }: Topology,
  cluster: ClusterName,
  words: readonly string[],
  signal: AbortSignal,
): Promise<Said> {
  const site = sites.find((each) => each.cluster === cluster);
  if (site === undefined) throw new NsmError("INTERNAL", "no-such-cluster", `the run has no ${cluster}`);
  const [program = "", ...first] = selfCommand();
  const child = spawn(program, [...first, ...words], {
    stdio: ["ignore", "pipe", "pipe"],
    signal,
    killSignal: "SIGKILL",
    env: {
      ...markedEnvironment(run),
      SPIFFE_ENDPOINT_SOCKET: identityUrl(folder, site.authority),
      NSM_PROXY_ADMIN: proxyAdminUrl(folder, cluster),
      NSM_CONNECT_TO: managerUrl(folder, site.nodes[0]),
    },
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  const [code, stdout, stderr] = await Promise.all([ended, text(child.stdout), text(child.stderr)]);
  return { code, stdout, stderr };
}
