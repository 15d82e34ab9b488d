/**
 * 1,000 services in each of ten other domains, simulated with a process for each daemon here and one for all that is there: how soon one
 * is found while all of them are renewed, and what each costs to know.
 */
import { fork } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { joinDomain } from "../../../sdk/domains/name.ts";
import { costOf, cpuTimes } from "../proc.ts";
import { remoteOf } from "../remote.ts";
import type { Remote } from "../remote.ts";
import type { Section } from "../sections.ts";
import { latencyOf } from "../setup.ts";
import { median, percentile, round } from "../statistics.ts";
import { issueAll } from "./identities.ts";
import type { Finds, Part, Plan, SimulationCommands } from "./simulation-commands.ts";
import { HOME } from "./world.ts";

const DOMAINS = Array.from({ length: 10 }, (_, i) => `d${i}`);
const SERVICES = 1000;
/** Services that are taken in, from each domain: every one of them is a watch for each domain. */
const IMPORTED = 50;
const WARM_UP = { count: 600 };
const MEASURED = { count: 1000, everyMs: 20 };
const REMEMBERED = { count: 1000 };

type Pace = Pick<Plan, "count" | "everyMs">;
type Simulated = Record<"domains" | "proxy" | "registry" | "client", Remote<SimulationCommands>>;

export const simulation: Section = {
  name: "clusters.registry",
  async run({ folder }, figures, say) {
    await using stack = new AsyncDisposableStack();
    const parts = await startAll(mkdtempSync(join(folder, "simulation-")), stack);
    const find = async (what: string, plan: Plan) => await measure(parts, what, plan, say);
    await parts.client.call("find", elsewhere(0, WARM_UP));
    const foundBytes = await bytesOf([parts.proxy], REMEMBERED.count, async () => {
      checked(await parts.client.call("find", elsewhere(WARM_UP.count, REMEMBERED)));
    });
    const importedBytes = await bytesOf([parts.registry, parts.proxy], IMPORTED * DOMAINS.length, () =>
      parts.registry.call("takeIn", IMPORTED, DOMAINS),
    );
    await parts.client.call("find", here(IMPORTED, 1, WARM_UP));
    await find("of the own domain", here(IMPORTED, 1, MEASURED));
    await find("of eleven domains", here(0, 1 + DOMAINS.length, MEASURED));
    const there = await find("elsewhere", elsewhere(0, MEASURED));
    const { p50Ms, p99Ms } = latencyOf(there.findMs);
    const echo = latencyOf(there.echoMs);
    figures.clusters.registry = {
      findP50Ms: p50Ms,
      findP99Ms: p99Ms,
      echoP50Ms: echo.p50Ms,
      echoP99Ms: echo.p99Ms,
      toEcho: round(p99Ms / echo.p99Ms),
      foundKiB: round(foundBytes / 1024),
      importedKiB: round(importedBytes / 1024),
    };
  },
};

async function startAll(folder: string, stack: AsyncDisposableStack): Promise<Simulated> {
  const roles = ["registry", "proxy"];
  const members = [
    ...["client", ...roles].map((role) => ({ domain: HOME, role })),
    ...DOMAINS.flatMap((domain) => roles.map((role) => ({ domain, role }))),
  ];
  const [client, registry, proxy, ...others] = await issueAll(members);
  if (client === undefined || registry === undefined || proxy === undefined) throw new Error("no identity");
  const domains = DOMAINS.flatMap((name, i) => {
    const [registryId, proxyId] = others.slice(2 * i);
    return registryId && proxyId ? [{ name, registry: registryId, proxy: proxyId }] : [];
  });
  const start = (part: Part) => stack.use(startPart(part));
  const common = { folder, services: SERVICES };
  const parts = {
    domains: start({ ...common, role: "domains", domains }),
    proxy: start({ ...common, role: "proxy", identity: proxy }),
    registry: start({ ...common, role: "registry", identity: registry }),
    client: start({ ...common, role: "client", identity: client }),
  };
  await Promise.all(Object.values(parts).map(({ ready }) => ready));
  return parts;
}

function startPart(part: Part): Remote<SimulationCommands> {
  const file = join(part.folder, `${part.role}.json`); // too much for an argument
  writeFileSync(file, JSON.stringify(part), { mode: 0o600 });
  const program = new URL("simulation-process.ts", import.meta.url);
  return remoteOf(part.role, fork(program, [file], { execArgv: ["--expose-gc"] }));
}

/** Each time one of another domain, and in the end each of them. */
function elsewhere(from: number, pace: Pace): Plan {
  const services = Array.from({ length: pace.count }, (_, i) =>
    joinDomain(`service-${Math.floor((from + i) / DOMAINS.length) % SERVICES}`, domainOf(from + i)),
  );
  return { services, expected: 1, ...pace };
}

function domainOf(i: number): string {
  return DOMAINS[i % DOMAINS.length] ?? "";
}

function here(from: number, expected: number, pace: Pace): Plan {
  const services = Array.from({ length: IMPORTED }, (_, i) => `service-${from + i}`);
  return { services, expected, ...pace };
}

async function measure(
  parts: Simulated,
  what: string,
  plan: Plan,
  say: (line: string) => void,
): Promise<Finds> {
  const all = Object.values(parts);
  for (const part of all) await part.call("longestStall");
  const before = cpuTimes(all);
  const finds = checked(await parts.client.call("find", plan));
  const cost = costOf(before, cpuTimes(all), plan.count);
  const [p50, p99, echo] = [median(finds.findMs), percentile(finds.findMs, 0.99), latencyOf(finds.echoMs)];
  say(`find ${what}: p50 ${round(p50)}, p99 ${round(p99)} ms; echo: p50 ${echo.p50Ms}, p99 ${echo.p99Ms} ms`);
  const stalls = await Promise.all(
    all.map(async (part) => `${part.name} ${round(await part.call("longestStall"), 1)}`),
  );
  say(`  processor time each, ms: ${cost.text}; longest stall, ms: ${stalls.join(", ")}`);
  return finds;
}

function checked(finds: Finds): Finds {
  const { failed } = finds;
  if (failed.length > 0) throw new Error(`${failed.length} of the finds failed: ${failed[0]}`);
  return finds;
}

/** What those processes have more of afterwards, for each of `count`. */
async function bytesOf(
  parts: readonly Remote<SimulationCommands>[],
  count: number,
  body: () => Promise<void>,
): Promise<number> {
  const sum = async () => {
    const each = await Promise.all(parts.map((part) => part.call("memory")));
    return each.reduce((a, b) => a + b, 0);
  };
  const before = await sum();
  await body();
  return ((await sum()) - before) / count;
}
