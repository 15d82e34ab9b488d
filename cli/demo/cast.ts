/** The processes of a run of the demo: recorded as they start, watched while they should live. */
import { NsmError } from "../../sdk/errors.ts";
import { signalAll, waitUntilGone } from "./processes.ts";
import { updateRecord } from "./record.ts";
import type { RunRecord } from "./record.ts";
import { lastComplaints, startPart } from "./start.ts";
import type { StartedPart } from "./start.ts";
import { namespaceOf } from "./topology.ts";
import type { Part, Topology } from "./topology.ts";

const KILLED_WITHIN_MS = 3000;

export interface Cast {
  start(part: Part): void;
  kill(name: string): Promise<void>;
  /** Aborts when one of them ends by itself. */
  readonly failed: AbortSignal;
  /** From now on they may end. */
  dismiss(): void;
}

export function createCast(topology: Topology, record: RunRecord): Cast {
  const failed = new AbortController();
  const running = new Map<string, StartedPart>();
  return {
    failed: failed.signal,
    start(part) {
      const started = startPart(topology, part);
      running.set(part.name, started);
      record.parts.push({
        name: part.name,
        role: part.role,
        namespace: namespaceOf(topology.run, part.place),
        pid: started.pid,
        startTime: started.startTime,
      });
      updateRecord(record);
      started.child.once("exit", (code, by) => failed.abort(endedEarly(topology, part, code ?? by)));
    },
    async kill(name) {
      const part = running.get(name);
      if (part === undefined) throw new NsmError("INTERNAL", "no-such-part", `${name} does not run`);
      running.delete(name);
      part.child.removeAllListeners("exit");
      signalAll([part], "SIGKILL");
      await waitUntilGone([part], KILLED_WITHIN_MS);
    },
    dismiss() {
      for (const { child } of running.values()) child.removeAllListeners("exit");
    },
  };
}

function endedEarly(topology: Topology, part: Part, how: number | string | null): NsmError {
  const said = lastComplaints(topology.folder, part.name, 3).join("\n  ");
  return new NsmError("UNAVAILABLE", "part-ended", `${part.name} ended (${String(how)}):\n  ${said}`);
}
