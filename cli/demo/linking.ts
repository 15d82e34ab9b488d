/** Links the two clusters of a run as an operator does: `nsm link token` here, `nsm link join` there, `nsm export` of what is to be used. */
import { existsSync } from "node:fs";
import { createBackoff } from "../../sdk/backoff.ts";
import { delay } from "../../sdk/clock.ts";
import { NsmError } from "../../sdk/errors.ts";
import { runAsOperator } from "./operator.ts";
import { CLUSTERS, proxyAdminUrl } from "./topology.ts";
import type { ClusterName, Topology } from "./topology.ts";

/** How long proxies may take to start. */
const PROXIES_WITHIN_MS = 30_000;

export interface LinkingOptions {
  /** Services of the cluster that the other one may use, beside those whose manifests say so. */
  readonly exports: Readonly<Record<ClusterName, readonly string[]>>;
  /** Told each command that has worked. */
  readonly say: (what: string) => void;
  readonly signal: AbortSignal;
}

/**
 * Resolves when both directions are verified; the caller must be a registered operator of both clusters (registrations.ts). The
 * time from the first command that a proxy answered, in milliseconds. Throws UNAVAILABLE `not-linked` with what a command said.
 */
export async function linkClusters(topology: Topology, options: LinkingOptions): Promise<number> {
  const { exports, say, signal } = options;
  const nsm = async (cluster: ClusterName, ...words: readonly string[]) => {
    const { code, stdout, stderr } = await runAsOperator(topology, cluster, words, signal);
    if (code === 0) return stdout;
    const text = `${cluster}: nsm ${words[0]} ${words[1]}: ${stderr.trim()}`;
    throw new NsmError("UNAVAILABLE", "not-linked", text);
  };
  const sockets = CLUSTERS.map((cluster) => proxyAdminUrl(topology.folder, cluster).slice("unix://".length));
  while (!sockets.every((socket) => existsSync(socket))) await delay(20, signal);
  await untilItAnswers(() => nsm("west", "link", "list"), signal);
  const { token, startMs } = await untilItAnswers(async () => {
    const begin = performance.now();
    return { token: (await nsm("east", "link", "token")).trim(), startMs: begin };
  }, signal);
  say(`east: nsm link token                    → ${token.slice(0, 16)}…`);
  await nsm("west", "link", "join", token);
  const tookMs = performance.now() - startMs;
  say(`west: nsm link join ${token.slice(0, 16)}…  → linked, both directions verified`);
  for (const [cluster, other] of [
    ["east", "west"],
    ["west", "east"],
  ] as const)
    for (const service of exports[cluster]) {
      await nsm(cluster, "export", service, "--to", other);
      say(`${cluster}: nsm export ${service} --to ${other}`);
    }
  return Math.round(tookMs);
}

/** Also while the proxy starts. */
async function untilItAnswers<T>(call: () => Promise<T>, signal: AbortSignal): Promise<T> {
  const backoff = createBackoff();
  const deadline = performance.now() + PROXIES_WITHIN_MS;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await delay(backoff.next(), signal);
    }
  }
}
