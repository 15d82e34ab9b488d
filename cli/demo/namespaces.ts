/** Network namespaces of a run and the underlay between its nodes, made with `ip`. */
import { spawn } from "node:child_process";
import { existsSync, unlinkSync } from "node:fs";
import { NsmError, errnoOf } from "../../sdk/errors.ts";
import { namespaceOf, underlay } from "./topology.ts";
import type { Topology } from "./topology.ts";

/** The file by which `ip netns` and nsenter(1) know a namespace. */
export function namespaceFile(name: string): string {
  return `/run/netns/${name}`;
}

/** Makes the namespaces and joins the nodes. The record of the run must name them already. */
export async function makeNamespaces(topology: Topology, env: NodeJS.ProcessEnv): Promise<void> {
  const name = (place: string) => namespaceOf(topology.run, place);
  const node1 = name("node1");
  const node2 = name("node2");
  await ipBatch(
    topology.places.map((place) => `netns add ${name(place)}`),
    env,
  );
  await ipBatch([`link add name underlay netns ${node1} type veth peer name underlay netns ${node2}`], env);
  await Promise.all(
    topology.places.map((place) => {
      const up = ["link set dev lo up"];
      if (place === "node1" || place === "node2")
        up.push(
          `address add ${underlay[place]}/24 dev underlay`,
          // No link-local address: it would appear seconds later, when nobody else answers for it.
          "link set dev underlay addrgenmode none",
          "link set dev underlay up",
        );
      return ipBatch(up, env, ["-n", name(place)]);
    }),
  );
}

/**
 * Removes the names; the kernel ends a namespace when no process is in it. Names that do not exist are fine, and so is
 * another removal at the same time: the caller looks at what is left.
 */
export async function removeNamespaces(names: readonly string[], env: NodeJS.ProcessEnv): Promise<void> {
  for (let attempt = 0; attempt < 3; attempt++) {
    const present = names.filter((name) => existsSync(namespaceFile(name)));
    if (present.length === 0) return;
    const lines = present.map((name) => `netns delete ${name}`).join("\n");
    await runIp(["-force", "-batch", "-"], lines, env);
    for (const name of present) removeFile(namespaceFile(name));
  }
}

/** A killed `ip netns add` leaves a file that is no namespace. One that is still mounted is busy. */
function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (!["ENOENT", "EBUSY"].includes(errnoOf(error) ?? "")) throw error;
  }
}

/** Runs `ip -batch` on the lines. Throws INTERNAL `ip-failed` with what it said. */
async function ipBatch(
  lines: readonly string[],
  env: NodeJS.ProcessEnv,
  options: readonly string[] = [],
): Promise<void> {
  const { code, stderr } = await runIp([...options, "-batch", "-"], lines.join("\n"), env);
  if (code !== 0) throw new NsmError("INTERNAL", "ip-failed", `ip ${options.join(" ")}: ${stderr.trim()}`);
}

/** What `ip -j` says as parsed JSON. */
export async function ipJson(args: readonly string[], env: NodeJS.ProcessEnv): Promise<unknown> {
  const { code, stdout, stderr } = await runIp(["-j", ...args], "", env);
  if (code !== 0) throw new NsmError("INTERNAL", "ip-failed", `ip ${args.join(" ")}: ${stderr.trim()}`);
  return JSON.parse(stdout || "[]");
}

function runIp(
  args: readonly string[],
  input: string,
  env: NodeJS.ProcessEnv,
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn("ip", args, { env });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (data: Buffer) => (stdout += data.toString()));
    child.stderr.on("data", (data: Buffer) => (stderr += data.toString()));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
    child.stdin.on("error", () => undefined); // it ended without reading all: its exit code and words say why
    child.stdin.end(input);
  });
}
