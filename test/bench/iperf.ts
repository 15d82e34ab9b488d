/** TCP throughput between two namespaces, by iperf3(1). */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { promisify } from "node:util";
import { z } from "zod";
import { delay } from "../../sdk/clock.ts";
import type { NamedNamespace } from "../support/netns.ts";

/** A way between two namespaces. */
export interface Link {
  readonly from: NamedNamespace;
  readonly to: NamedNamespace;
  /** Of the far end. */
  readonly address: string;
}

export interface IperfServer extends AsyncDisposable {
  readonly link: Link;
}

const READY_WITHIN_MS = 15_000;
const Result = z.object({ end: z.object({ sum_received: z.object({ bits_per_second: z.number() }) }) });
const run = promisify(execFile);

export function startServer(link: Link): IperfServer {
  const inside = [`--net=/run/netns/${link.to.name}`, "iperf3", "--server", "--bind", link.address];
  const child = spawn("nsenter", inside, { stdio: "ignore" });
  const ended = once(child, "exit");
  return {
    link,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** Gbit/s that arrived. Throws with what iperf3 said. */
export async function measure({ link }: IperfServer, seconds: number): Promise<number> {
  const client = ["iperf3", "--client", link.address, "--time", String(seconds), "--json"];
  const inside = [`--net=/run/netns/${link.from.name}`, ...client, "--connect-timeout", "2000"];
  const { stdout } = await run("nsenter", inside, { timeout: (seconds + 10) * 1000, maxBuffer: 2 ** 24 });
  return Result.parse(JSON.parse(stdout)).end.sum_received.bits_per_second / 1e9;
}

/** A tunnel's handshake and the server's start take a moment. */
export async function warmUp(server: IperfServer): Promise<void> {
  for (const end = performance.now() + READY_WITHIN_MS; ;) {
    try {
      await measure(server, 1);
      return;
    } catch (error) {
      if (performance.now() > end) throw error;
      await delay(200);
    }
  }
}
