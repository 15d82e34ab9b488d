/** `nsm demo` as a process of its own, and what it says in JSON. */
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
import { z } from "zod";

export const NSM = join(dirname(dirname(import.meta.dirname)), "bin/nsm.js");

const Wire = z.object({
  client: z.string(),
  service: z.string(),
  endpoint: z.string(),
  mechanism: z.enum(["KERNEL", "WIREGUARD", "VXLAN"]),
  interface: z.string(),
  addresses: z.array(z.string()),
  path: z.array(z.string()),
  mtu: z.number(),
  rttMs: z.number(),
  pingsSent: z.number(),
  pingsReceived: z.number(),
});
const Scenario = z.object({
  ok: z.boolean(),
  setupMs: z.number().nullable(),
  rttMs: z.number().nullable(),
  failBackGapMs: z.number().nullable(),
  healGapMs: z.number().nullable(),
  packetsLost: z.number().nullable(),
});
export type Wire = z.infer<typeof Wire>;
export const Document = z.object({
  run: z.string(),
  firstPingMs: z.number().nullable(),
  firstPingBetweenClustersMs: z.number().nullable(),
  linkMs: z.number().nullable(),
  wires: z.array(Wire),
  unavailable: z.array(z.object({ mechanism: z.string(), reason: z.string(), remedy: z.string() })),
  scenarios: z.record(z.string(), Scenario),
  removed: z.boolean(),
});

/** The words before a command that let it see a machine without user-space tunnels. */
export const WITHOUT_TUN = [
  "unshare",
  "--mount",
  "sh",
  "-c",
  'mount -t tmpfs tmpfs /dev/net && exec "$@"',
  "sh",
];

export function wiresOf(wires: readonly Wire[], client: string): readonly Wire[] {
  return wires.filter((wire) => wire.client === client);
}

/** `nsm demo …` as a process of its own. */
export class Demo {
  readonly #child: ChildProcess;
  #heard = Promise.withResolvers<void>();
  stdout = "";
  stderr = "";

  constructor(args: readonly string[], wrapper: readonly string[] = []) {
    const [program = "", ...rest] = [...wrapper, process.execPath, NSM, "demo", ...args];
    this.#child = spawn(program, rest, { stdio: ["ignore", "pipe", "pipe"] });
    this.#child.stdout?.on("data", (data: Buffer) => {
      this.stdout += data.toString();
      this.#hear();
    });
    this.#child.stderr?.on("data", (data: Buffer) => {
      this.stderr += data.toString();
      this.#hear();
    });
    onTestFinished(() => void this.#child.kill("SIGKILL"));
  }

  #hear(): void {
    this.#heard.resolve();
    this.#heard = Promise.withResolvers();
  }

  /** Fails when it ends without having said so. */
  async says(words: string): Promise<void> {
    const ended = this.ended();
    let isOver = false;
    void ended.then(() => (isOver = true));
    while (!(this.stdout + this.stderr).includes(words)) {
      if (isOver) throw new Error(`it did not say "${words}":\n${this.stdout}${this.stderr}`);
      await Promise.race([this.#heard.promise, ended]);
    }
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  stopReading(): void {
    this.#child.stdout?.destroy();
  }

  async ended(): Promise<number | string | null> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, "close");
    return this.#child.exitCode ?? this.#child.signalCode;
  }
}

export function down(run: string): unknown {
  const result = spawnSync(process.execPath, [NSM, "demo", "down", "--run", run, "--output", "json"], {
    encoding: "utf8",
  });
  return JSON.parse(result.stdout);
}
