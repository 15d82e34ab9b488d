/** The programs that make and read networks, for the demo. */
import { spawn } from "node:child_process";
import { NsmError } from "../../sdk/errors.ts";

/** The file by which `ip netns` and nsenter(1) know a namespace. */
export function namespaceFile(name: string): string {
  return `/run/netns/${name}`;
}

/** Commands of `ip` for a device with this address of a /24. */
export function deviceUp(device: string, address: string): readonly string[] {
  return [
    `address add ${address}/24 dev ${device}`,
    // No link-local address: it would appear seconds later, when nobody else answers for it.
    `link set dev ${device} addrgenmode none`,
    `link set dev ${device} up`,
  ];
}

/** Runs `ip -batch` on the lines. Throws INTERNAL `ip-failed` with what it said. */
export async function ipBatch(
  lines: readonly string[],
  env: NodeJS.ProcessEnv,
  options: readonly string[] = [],
): Promise<void> {
  const { code, stderr } = await run("ip", [...options, "-batch", "-"], lines.join("\n"), env);
  if (code !== 0) throw new NsmError("INTERNAL", "ip-failed", `ip ${options.join(" ")}: ${stderr.trim()}`);
}

/** What `ip -j` says as parsed JSON. */
export async function ipJson(args: readonly string[], env: NodeJS.ProcessEnv): Promise<unknown> {
  const { code, stdout, stderr } = await run("ip", ["-j", ...args], "", env);
  if (code !== 0) throw new NsmError("INTERNAL", "ip-failed", `ip ${args.join(" ")}: ${stderr.trim()}`);
  return JSON.parse(stdout || "[]");
}

/** Runs a program with this input to its end. */
export function run(
  program: string,
  args: readonly string[],
  input: string,
  env: NodeJS.ProcessEnv,
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env });
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
