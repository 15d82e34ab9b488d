/** What a replay found: how many calls were compared, and every difference with the call that it belongs to. */
import type { RecordedCall } from "./recording.ts";

export interface Finding {
  readonly component: string;
  /** Undefined for a call of ours that nobody recorded. */
  readonly call: RecordedCall | undefined;
  readonly lines: readonly string[];
  /** Of DECISIONS.md, where the difference is meant. */
  readonly record?: string;
}

export interface Report {
  /** Calls by kind: `nsmgr served Request`. */
  readonly compared: ReadonlyMap<string, number>;
  readonly findings: Finding[];
  /** Recorded calls that were looked at. */
  readonly seen: Set<RecordedCall>;
  count(kind: string, call?: RecordedCall): void;
  /** No lines, no finding. */
  add(finding: Finding): void;
}

export function createReport(): Report {
  const compared = new Map<string, number>();
  const findings: Finding[] = [];
  const seen = new Set<RecordedCall>();
  return {
    compared,
    findings,
    seen,
    count(kind, call) {
      compared.set(kind, (compared.get(kind) ?? 0) + 1);
      if (call !== undefined) seen.add(call);
    },
    add(finding) {
      if (finding.lines.length > 0) findings.push(finding);
    },
  };
}

/** One text a finding. */
export function textOf({ component, call, lines }: Finding): string {
  const title =
    call === undefined
      ? component
      : `${component}: call ${call.n} ${call.client} -> ${call.server} ${call.method}`;
  return [title, ...lines.map((line) => `  ${line}`)].join("\n");
}
