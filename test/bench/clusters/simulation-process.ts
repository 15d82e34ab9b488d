/** One process of the simulation: its memory and its event loop are nobody else's, as those of a daemon. Run with --expose-gc. */
import { readFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { create } from "@bufbuild/protobuf";
import { NetworkServiceEndpointSchema } from "../../../api/gen/registry_pb.js";
import { delay } from "../../../sdk/clock.ts";
import { messageOf } from "../../../sdk/errors.ts";
import { findAll } from "../../../sdk/registry/registry.ts";
import { serveCommands } from "../remote.ts";
import type { Finds, Part, Plan, SimulationCommands } from "./simulation-commands.ts";
import { openDomain, openHomeClient, openHomeProxy, openHomeRegistry, registerService } from "./world.ts";
import type { HomeClient } from "./world.ts";

const IMPORTED_WITHIN_MS = 60_000;
/** A machine that is too slow for the pace is not given ever more to do. */
const MOST_AT_ONCE = 8;
const FOREVER = new AbortController().signal;

async function open(part: Part): Promise<SimulationCommands> {
  const { folder, services } = part;
  const stalls = monitorEventLoopDelay({ resolution: 1 });
  stalls.enable();
  const notHere = () => Promise.reject(new Error(`not the affair of ${part.role}`));
  const commands: SimulationCommands = {
    memory: memoryBytes,
    longestStall() {
      const longestMs = stalls.max / 1e6;
      stalls.reset();
      return Promise.resolve(longestMs);
    },
    find: notHere,
    takeIn: notHere,
  };
  switch (part.role) {
    case "domains":
      for (const { name, ...identities } of part.domains)
        await openDomain(folder, name, services, identities);
      return commands;
    case "proxy":
      await openHomeProxy(folder, part.identity);
      return commands;
    case "registry": {
      const registries = await openHomeRegistry(folder, services, part.identity);
      const takeIn = async (count: number, domains: readonly string[]) => {
        for (let i = 0; i < count; i++) await registerService(registries, i, domains);
        await until(() => registries.sizes().endpoints, services + count * domains.length);
      };
      return { ...commands, takeIn };
    }
    case "client": {
      const client = openHomeClient(folder, part.identity);
      return { ...commands, find: (plan) => find(client, plan) };
    }
  }
}

async function find({ registries, echo }: HomeClient, plan: Plan): Promise<Finds> {
  const { services, expected, count, everyMs } = plan;
  const [findMs, echoMs]: [number[], number[]] = [[], []];
  const failed: string[] = [];
  const timed = async (into: number[], call: () => Promise<unknown>) => {
    const startMs = performance.now();
    try {
      await call();
      into.push(performance.now() - startMs);
    } catch (error) {
      failed.push(messageOf(error));
    }
  };
  const findOne = async (service: string) => {
    const query = create(NetworkServiceEndpointSchema, { networkServiceNames: [service] });
    const found = await findAll(registries.endpoints, query, FOREVER);
    if (found.length !== expected)
      throw new Error(`${service} has ${found.length} endpoints, not ${expected}`);
  };
  const calls: Promise<void>[] = [];
  const startMs = performance.now();
  for (let i = 0; i < 2 * count; i++) {
    await calls.at(everyMs === undefined ? -1 : -MOST_AT_ONCE);
    if (everyMs !== undefined) await delay(startMs + (i * everyMs) / 2 - performance.now());
    const service = services[(i / 2) % services.length] ?? "";
    calls.push(i % 2 === 0 ? timed(findMs, () => findOne(service)) : timed(echoMs, echo));
  }
  await Promise.all(calls);
  return { findMs, echoMs, failed };
}

async function until(size: () => number, wanted: number): Promise<void> {
  for (const end = performance.now() + IMPORTED_WITHIN_MS; size() < wanted; await delay(50))
    if (performance.now() > end)
      throw new Error(`${size()} of ${wanted} endpoints after ${IMPORTED_WITHIN_MS} ms`);
}

/** Once what is garbage is gone. */
async function memoryBytes(): Promise<number> {
  if (global.gc === undefined) throw new Error("run it with --expose-gc");
  for (let i = 0; i < 3; i++) {
    await delay(50);
    global.gc();
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

await serveCommands(() => open(JSON.parse(readFileSync(process.argv[2] ?? "", "utf8"))));
