/**
 * `npm run bench [-- --out FILE] [--only setup.local,refresh] [--profile FOLDER]`: figures of the whole mesh on this machine.
 *
 * Runs in a sandbox of its own (test/support/sandbox.ts): however it ends, the kernel removes every namespace, device and
 * process of it. Each section has a mesh of its own; one that fails is reported and stops no other.
 */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, openSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { provide, testTools, wg } from "../../cli/requirements.ts";
import type { Tool } from "../../cli/requirements.ts";
import { delay } from "../../sdk/clock.ts";
import { messageOf } from "../../sdk/errors.ts";
import { inSandbox, insideSandbox } from "../support/sandbox.ts";
import { buildIfStale, installPackage } from "./built.ts";
import type { Launch } from "./daemons.ts";
import { healAcross } from "./clusters/heal.ts";
import { linkAtRest } from "./clusters/link.ts";
import { setupAcross } from "./clusters/setup.ts";
import { silentDomains } from "./clusters/silent.ts";
import { simulation } from "./clusters/simulation.ts";
import { withdrawal } from "./clusters/withdrawal.ts";
import { clientKilled } from "./heal/clients.ts";
import { endpointSections } from "./heal/endpoints.ts";
import { lossyWires } from "./heal/loss.ts";
import { restartSections } from "./heal/restarts.ts";
import { idle } from "./idle.ts";
import { refreshLocal, refreshRemote } from "./refresh.ts";
import { registry10k } from "./registry10k.ts";
import { printReport } from "./report.ts";
import { noFigures } from "./sections.ts";
import type { Section } from "./sections.ts";
import { setupLocal, setupLocal16, setupVxlan } from "./setup.ts";
import { throughputSections } from "./throughput.ts";
import { wires500 } from "./wires500.ts";
import { yardstick } from "./yardstick.ts";

const SECTIONS: readonly Section[] = [
  yardstick,
  setupLocal,
  setupVxlan,
  setupLocal16,
  refreshLocal,
  refreshRemote,
  wires500,
  registry10k,
  idle,
  ...throughputSections,
  ...endpointSections,
  ...restartSections,
  clientKilled,
  lossyWires,
  setupAcross,
  ...healAcross,
  linkAtRest,
  withdrawal,
  silentDomains,
  simulation,
];

const SECTION_WITHIN_MS = 150_000;
/** Descriptor of the file for the figures: the sandbox has a /run of its own, the path may mean something else there. */
const OUT = 3;
const iperf3: Tool = { command: "iperf3", package: "iperf3", why: "measures throughput" };

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { out: { type: "string" }, only: { type: "string" }, profile: { type: "string" } },
  });
  if (process.getuid?.() !== 0) {
    console.error("the bench makes network namespaces and needs root: run it with sudo");
    return 1;
  }
  if (!inSandbox()) return await runInSandbox(values.out);
  const launch = launchOf(values.profile);
  const only = values.only?.split(",");
  const figures = noFigures();
  const failures = new Map<string, string>();
  for (const section of SECTIONS) {
    if (only?.some((name) => section.name.startsWith(name)) === false) continue;
    const start = performance.now();
    const say = (line: string) => console.log(`  ${line}`);
    console.log(section.name);
    await Promise.race([section.run(launch, figures, say), tooLong()]).catch((error: unknown) => {
      failures.set(section.name, messageOf(firstOf(error)));
      say(`FAILED: ${messageOf(firstOf(error))}`);
    });
    say(`took ${((performance.now() - start) / 1000).toFixed(1)} s`);
  }
  printReport(figures, failures, only !== undefined);
  if (values.out !== undefined) writeFileSync(OUT, `${JSON.stringify(figures, undefined, 2)}\n`);
  return failures.size === 0 ? 0 : 1;
}

/** What went wrong first, when what it left could not be removed either. */
function firstOf(error: unknown): unknown {
  return error instanceof SuppressedError ? firstOf(error.suppressed) : error;
}

/** A section that hangs stops no other either; what it left running ends with the sandbox. */
async function tooLong(): Promise<never> {
  await delay(SECTION_WITHIN_MS);
  throw new Error(`it did not end within ${SECTION_WITHIN_MS / 1000} s`);
}

function launchOf(profile: string | undefined): Launch {
  const folder = mkdtempSync(join(tmpdir(), "nsm-bench-"));
  const cache = join(folder, "cache");
  const nsm = installPackage(folder);
  if (profile === undefined) return { folder, cache, nsm: [process.execPath, nsm] };
  const target = resolve(profile);
  mkdirSync(target, { recursive: true });
  return { folder, cache, nsm: [process.execPath, "--cpu-prof", `--cpu-prof-dir=${target}`, nsm] };
}

/** The sandbox ends with this process, whatever ends it. */
function runInSandbox(out: string | undefined): Promise<number> {
  buildIfStale();
  try {
    provide([...testTools(), wg, iperf3], (line) => console.error(line));
  } catch (error) {
    console.error(messageOf(error)); // the sections that need it will say so
  }
  const command = insideSandbox([process.execPath, ...process.argv.slice(1)]);
  const child = spawn("setpriv", ["--pdeathsig", "KILL", "--", ...command], {
    stdio: ["inherit", "inherit", "inherit", out === undefined ? "ignore" : openSync(out, "w")],
  });
  const kill = () => child.kill("SIGKILL");
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, kill);
  return new Promise((done) => child.once("exit", (code) => done(code ?? 130)));
}

process.exit(await main());
