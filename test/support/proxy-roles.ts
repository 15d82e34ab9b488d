/**
 * Both proxies of a mesh of two clusters replaced by the roles that they have, each a process of its own, which find the domains by
 * name servers alone:
 *
 *     registry-east ──► nsmgr-proxy (east) ──► registry-proxy (east) ──► registry-west
 *                            └──────────► nsmgr-proxy (west)
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { CLUSTERS, NODES_OF, outside, underlay } from "../../cli/demo/topology.ts";
import { FLOATING, floatingDomain } from "./floating.ts";
import { startNameServer, withResolvConf } from "./pod-names.ts";
import { startDaemon } from "./process.ts";
import type { UsedMesh } from "./use-mesh.ts";

export interface ProxyRoles extends AsyncDisposable {
  /** Names of a domain that somebody has asked name servers for. */
  asked(domain: string): readonly string[];
}

const NAME_SERVER = "127.0.0.2";
const [REGISTRY_PORT, PROXY_PORT, REGISTRY_PROXY_PORT] = [5002, 5004, 5005];
const READY_WITHIN_MS = 20_000;
const NSM = join(dirname(dirname(import.meta.dirname)), "bin/nsm.js");

/**
 * `more`: domains beside the clusters that the registry proxies may look up; `floating` is known to the name servers, and they say
 * nothing of others. Disposing starts the proxies of before.
 */
export async function proxyRolesApart(
  mesh: UsedMesh,
  folder: string,
  more: readonly string[],
): Promise<ProxyRoles> {
  await using stack = new AsyncDisposableStack();
  const asked: string[] = [];
  const resolvConf = join(folder, "resolv.conf-of-proxies");
  writeFileSync(resolvConf, `nameserver ${NAME_SERVER}\n`);
  stack.defer(() => rmSync(resolvConf));
  const proxies = CLUSTERS.map((cluster) => ({ cluster, ...processOf(mesh.daemon(`proxy-${cluster}`).pid) }));
  await Promise.all(proxies.map(({ cluster }) => mesh.daemon(`proxy-${cluster}`).stop()));
  stack.defer(async () => {
    const again = proxies.map(({ cluster }) => mesh.start(`proxy-${cluster}`));
    await Promise.all(again.map((proxy) => proxy.waitFor("proxy serves", READY_WITHIN_MS)));
  });
  const starts = proxies.map(async ({ cluster, gid, env }) => {
    const [node] = NODES_OF[cluster];
    const ns = mesh.namespace(node);
    const recorded = (name: string) => {
      asked.push(name);
      return recordOf(name);
    };
    stack.use(startNameServer(ns, NAME_SERVER, recorded));
    const { SPIFFE_ENDPOINT_SOCKET = "", NSM_LOG_LEVEL = "" } = env;
    const registryProxyUrl = `tcp://${underlay[node]}:${REGISTRY_PROXY_PORT}`;
    const environments = {
      "registry-proxy": {
        SPIFFE_ENDPOINT_SOCKET,
        NSM_LOG_LEVEL,
        NSM_LISTEN_ON: registryProxyUrl,
        NSM_DNS_DOMAINS: [...CLUSTERS.filter((each) => each !== cluster), ...more].join(),
      },
      "nsmgr-proxy": {
        ...env,
        NSM_DOMAIN: "",
        NSM_DOMAINS_PATH: "",
        NSM_REGISTRY_PROXY_URL: registryProxyUrl,
      },
    };
    const roles = Object.entries(environments).map(async ([role, own]) => {
      const daemon = startDaemon({
        nsm: [...withResolvConf(resolvConf), process.execPath, NSM],
        command: [role],
        name: `${role} of ${cluster}`,
        netns: `/run/netns/${ns.name}`,
        gid,
        env: own,
      });
      stack.use(daemon);
      await daemon.waitFor("proxy serves", READY_WITHIN_MS);
    });
    await Promise.all(roles);
  });
  await Promise.all(starts);
  const resources = stack.move();
  return {
    asked: (domain) => asked.filter((name) => name.endsWith(`.${domain}`)),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** The group and the environment of a process. */
function processOf(pid: number) {
  const [, gid] = /^Gid:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  const env: Record<string, string> = {};
  for (const variable of readFileSync(`/proc/${pid}/environ`, "utf8").split("\0")) {
    const at = variable.indexOf("=");
    if (at > 0) env[variable.slice(0, at)] = variable.slice(at + 1);
  }
  return { gid: Number(gid), env };
}

const OF_REGISTRY = "registry.nsm-system.";
const OF_PROXY = "nsmgr-proxy.nsm-system.";
const FLOATING_ADDRESS = new URL(floatingDomain.floating.registry).hostname;

/** Undefined: there is no such name; null: no answer. */
function recordOf(name: string) {
  const prefix = [OF_REGISTRY, OF_PROXY].find((each) => name.startsWith(each)) ?? "";
  const domain = name.slice(prefix.length);
  if (domain === FLOATING)
    return prefix === OF_REGISTRY ? { address: FLOATING_ADDRESS, port: REGISTRY_PORT } : undefined;
  const cluster = CLUSTERS.find((each) => each === domain);
  if (cluster === undefined) return null;
  const address = outside[NODES_OF[cluster][0]];
  return { address, port: prefix === OF_REGISTRY ? REGISTRY_PORT : PROXY_PORT };
}
