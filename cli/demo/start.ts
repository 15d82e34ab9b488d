/** Starts the parts of a run: each in its namespace, with its group and no more capabilities than its role needs. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { NsmError } from "../../sdk/errors.ts";
import { selfCommand } from "../package-root.ts";
import { markedEnvironment } from "./down.ts";
import { namespaceFile } from "./commands.ts";
import { processId } from "./processes.ts";
import type { ProcessId } from "./processes.ts";
import { namespaceOf } from "./topology.ts";
import type { Part, Topology } from "./topology.ts";

/**
 * Capabilities beside none (capabilities(7)). The user stays root, so that a checkout in a private folder can be read.
 * The authority looks at the namespaces of processes that may do more than itself, the forwarder enters those of pods and
 * changes them, the client probes its wires and answers for names on port 53.
 */
const CAPABILITIES: Readonly<Record<Part["role"], readonly string[]>> = {
  identity: ["dac_read_search", "sys_ptrace"],
  registry: ["dac_read_search"],
  proxy: ["dac_read_search"],
  nsmgr: ["dac_read_search"],
  forwarder: ["dac_read_search", "net_admin", "sys_admin", "sys_ptrace"],
  nse: ["dac_read_search"],
  nsc: ["dac_read_search", "net_bind_service", "net_raw"],
};

export function capabilitiesOf({ role, capabilities = [] }: Part): readonly string[] {
  return [...CAPABILITIES[role], ...capabilities];
}

export interface StartedPart extends ProcessId {
  readonly part: Part;
  readonly child: ChildProcess;
}

export function logFile(folder: string, part: string): string {
  return join(folder, "logs", `${part}.log`);
}

/**
 * Starts one part in a session of its own; it writes to its log and does not need us to live.
 * Throws INTERNAL `part-failed` when it could not be started or ended at once.
 */
export function startPart(topology: Topology, part: Part): StartedPart {
  const capabilities = capabilitiesOf(part).map((name) => `+${name}`);
  const log = openSync(logFile(topology.folder, part.name), "a", 0o644);
  try {
    const child = spawn(
      "nsenter",
      [
        `--net=${namespaceFile(namespaceOf(topology.run, part.place))}`,
        "--",
        "setpriv",
        `--regid=${part.gid}`,
        "--clear-groups",
        `--bounding-set=-all,${capabilities.join(",")}`,
        "--",
        ...selfCommand(),
        ...(part.command ?? [part.role]),
      ],
      {
        detached: true,
        cwd: "/",
        stdio: ["ignore", log, log],
        env: { ...markedEnvironment(topology.run), ...part.env },
      },
    );
    child.unref();
    const id = child.pid === undefined ? undefined : processId(child.pid);
    if (id === undefined) throw new NsmError("INTERNAL", "part-failed", `cannot start ${part.name}`);
    return { ...id, part, child };
  } finally {
    closeSync(log);
  }
}

/** The last warnings and errors of a log, else its last lines, as one line each; none of a part that was not started. */
export function lastComplaints(folder: string, part: string, count: number): readonly string[] {
  const found = complaints(folder, part, count);
  return found.length > 0 ? found : linesOf(folder, part).slice(-count);
}

/** The last warnings and errors alone. */
export function complaints(folder: string, part: string, count: number): readonly string[] {
  const isComplaint = (line: string) => /"level":[456]0/.test(line) || !line.startsWith("{");
  return linesOf(folder, part).filter(isComplaint).slice(-count);
}

function linesOf(folder: string, part: string): readonly string[] {
  if (!existsSync(logFile(folder, part))) return [];
  const lines = readFileSync(logFile(folder, part), "utf8").split("\n");
  return lines.filter((line) => line !== "");
}
