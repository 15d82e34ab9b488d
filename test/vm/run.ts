/**
 * `npm run test:vm`: the data plane on Debian's kernel, which has WireGuard, in a virtual machine; ends with the line
 * `N passed, N failed`.
 *
 *     npm run test:vm                   all tests of test/vm/guest
 *     npm run test:vm -- clock          those whose name contains "clock"
 *
 * Needs no KVM, and root only to install what is missing. Leaves nothing but test/vm/.cache.
 */
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ip, nft, provide, wg } from "../../cli/requirements.ts";
import type { Tool } from "../../cli/requirements.ts";
import { messageOf } from "../../sdk/errors.ts";
import { writeImage } from "./image.ts";
import { runMachine } from "./machine.ts";
import { preparePackages } from "./packages.ts";
import { Report } from "./report.ts";

const CACHE = join(import.meta.dirname, ".cache");
const LIMIT_MS = 480_000;
const TOOLS: readonly Tool[] = [
  { command: "qemu-system-x86_64", package: "qemu-system-x86", why: "runs the virtual machine" },
  { command: "setpriv", package: "util-linux", why: "ends the virtual machine with the test" },
  { command: "nsenter", package: "util-linux", why: "used within the virtual machine" },
  ip,
  nft,
  wg,
];

async function main(words: readonly string[]): Promise<number> {
  const tally = { passed: 0, failed: 0 };
  try {
    await runGuest(words, tally);
  } catch (error) {
    console.error(messageOf(error));
    tally.failed++;
  }
  console.log(`${tally.passed} passed, ${tally.failed} failed`);
  return tally.failed === 0 && tally.passed > 0 ? 0 : 1;
}

async function runGuest(words: readonly string[], tally: { passed: number; failed: number }): Promise<void> {
  if (process.arch !== "x64")
    throw new Error(
      `the virtual machine is an x86_64 one and runs this machine's Node: not possible on ${process.arch}`,
    );
  provide(TOOLS, (line) => console.error(line));
  mkdirSync(CACHE, { recursive: true });
  const packages = preparePackages(CACHE, (line) => console.error(line));
  const [image, kernelLog] = [openUnnamed(), openUnnamed()];
  await writeImage(image, packages, words);
  console.log(`booting Linux ${packages.release} (times below are the machine's own)`);
  const signal = AbortSignal.any([AbortSignal.timeout(LIMIT_MS), interruption()]);
  let ended = false;
  const onLine = (line: string): void => {
    const report = parse(line);
    if (report?.is === "end") ended = true;
    else show(report ?? { is: "note", text: line }, tally);
  };
  await runMachine({ packages, image, console: kernelLog, onLine, signal });
  if (ended) return;
  const kernelSaid = readFileSync(`/proc/self/fd/${kernelLog}`, "latin1").trim().split(/\r?\n/);
  console.error(kernelSaid.slice(-30).join("\n"));
  throw new Error(
    signal.aborted
      ? `the virtual machine was stopped: ${messageOf(signal.reason)}`
      : "the virtual machine ended before its tests did; above is what its kernel said last",
  );
}

function show(report: Exclude<Report, { is: "end" }>, tally: { passed: number; failed: number }): void {
  switch (report.is) {
    case "passed":
      tally.passed++;
      console.log(` ✓ ${report.name} ${Math.round(report.ms)} ms`);
      break;
    case "failed":
      tally.failed++;
      console.log(
        `FAILED: ${report.name} ${Math.round(report.ms)} ms\n${report.message.replaceAll(/^/gm, "     ")}`,
      );
      break;
    case "note":
      console.log(`   ${report.text}`);
  }
}

function parse(line: string): Report | undefined {
  if (!line.startsWith("{")) return undefined;
  const report = Report.safeParse(JSON.parse(line));
  return report.success ? report.data : undefined;
}

/** A file that is gone when this process is, and qemu with it. */
function openUnnamed(): number {
  const folder = mkdtempSync(join(tmpdir(), "nsm-vm-"));
  const fd = openSync(join(folder, "file"), "w+", 0o600);
  rmSync(folder, { recursive: true });
  return fd;
}

function interruption(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
    process.once(name, () => controller.abort(new Error(`interrupted by ${name}`)));
  return controller.signal;
}

process.exitCode = await main(process.argv.slice(2));
