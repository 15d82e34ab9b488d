/** What the sections about healing share: a mesh of real clients and endpoints from the built package, and the prober. */
import { startProber, startReflector } from "../../../cli/probe/start.ts";
import type { ProbeOptions, Prober, Reflector } from "../../../cli/probe/start.ts";
import { namespaceNamed } from "../../support/netns.ts";
import { startMesh } from "../../support/mesh.ts";
import type { Mesh } from "../../support/mesh.ts";
import type { MeshOptions } from "../../support/mesh-topology.ts";
import type { Launch } from "../daemons.ts";
import type { Healing } from "../sections.ts";
import { median, percentile, round } from "../statistics.ts";

export const RUNS = 10;

export interface HealMesh {
  readonly mesh: Mesh;
  reflect(pod: string): Promise<Reflector>;
  probe(pod: string, address: string): Promise<Prober>;
}

/** The mesh is disposed by its user. */
export async function startHealMesh(
  launch: Launch,
  options: MeshOptions,
): Promise<HealMesh & AsyncDisposable> {
  const cache = { NODE_COMPILE_CACHE: launch.cache };
  const { env: own = {} } = options;
  const env = (part: string) => ({ ...cache, ...(typeof own === "function" ? own(part) : own) });
  const mesh = await startMesh({ ...options, nsm: launch.nsm, env });
  const within = (pod: string): ProbeOptions => ({
    netns: `/run/netns/${mesh.namespace(`pod-${pod}`).name}`,
    nsm: launch.nsm,
    env: cache,
  });
  return {
    mesh,
    reflect: (pod) => startReflector(pod, within(pod)),
    probe: (pod, address) => startProber(address, within(pod)),
    [Symbol.asyncDispose]: () => mesh[Symbol.asyncDispose](),
  };
}

/** Of runs that all worked. */
export function healingOf(eachMs: readonly number[], packetsLost: number): Healing {
  return {
    p50Ms: round(median(eachMs), 0),
    p99Ms: round(percentile(eachMs, 0.99), 0),
    packetsLost,
    runs: eachMs.length,
  };
}

/** Resolves with the milliseconds from `sinceMs` (performance.now) until it holds. Throws when it takes too long. */
export async function timeUntil(
  what: string,
  sinceMs: number,
  withinMs: number,
  holds: () => boolean | Promise<boolean>,
): Promise<number> {
  while (!(await holds())) {
    if (performance.now() - sinceMs > withinMs) throw new Error(`${what}: not within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return performance.now() - sinceMs;
}

/** How many devices of ours a namespace has (proc_pid_net(5)); none when it is gone. */
export function wireDevices(mesh: Mesh, pod: string): number {
  const lines = namespaceNamed(mesh.namespace(pod).name).exec("cat", "/proc/net/dev").split("\n");
  return lines.filter((line) => line.includes(":") && !/^\s*(lo|underlay):/.test(line)).length;
}
