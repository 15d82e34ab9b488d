/** What of a stranger's answer is handed on: records of the name that was asked for, and of those that it is an alias of (RFC 1034 §3.6.2). Pure. */
import packet from "dns-packet";
import type { Answer as Resource } from "dns-packet";
import type { Answer, Query } from "./message.ts";
import { encode } from "./message.ts";

/**
 * The answer without records of other names, which a cache behind us could believe. It has failed when an alias leads to a name that
 * `isForbidden`, when nothing is left, and when it cannot be written. The very same when there is nothing to take away.
 */
export function scrubbed(answer: Answer, { name }: Query, isForbidden: (name: string) => boolean): Answer {
  if (answer.kind === "failed") return answer;
  const failed: Answer = { ...answer, kind: "failed", ttlSeconds: 0 };
  const decoded = packet.decode(answer.bytes);
  const { answers = [], authorities = [], additionals = [] } = decoded;
  const names = aliasesOf(name.toLowerCase(), answers);
  if ([...names].slice(1).some(isForbidden)) return failed;
  const kept = {
    answers: answers.filter((record) => names.has(record.name.toLowerCase())),
    // How long absence lasts, and EDNS.
    authorities: authorities.filter(({ type }) => answer.kind !== "positive" && type === "SOA"),
    additionals: additionals.filter(({ type }) => type === "OPT"),
  };
  if (answer.kind === "positive" && kept.answers.length === 0) return failed;
  const isWhole =
    kept.answers.length === answers.length &&
    kept.authorities.length === authorities.length &&
    kept.additionals.length === additionals.length;
  if (isWhole) return answer;
  const bytes = encode({ ...decoded, ...kept });
  return bytes === undefined ? failed : { ...answer, bytes };
}

/** The name first, then where its aliases lead, in any order of the records. */
function aliasesOf(name: string, records: readonly Resource[]): ReadonlySet<string> {
  const targets = new Map<string, string>();
  for (const record of records)
    if (record.type === "CNAME") targets.set(record.name.toLowerCase(), record.data.toLowerCase());
  const names = new Set<string>();
  for (let next: string | undefined = name; next !== undefined && !names.has(next); next = targets.get(next))
    names.add(next);
  return names;
}
