/** Call metadata: our token for that peer, its expiry, and the path of a registration. */
import { readRegistrationPath } from "../../../sdk/registry-path.ts";
import { TOKEN_EXPIRES_KEY, TOKEN_KEY } from "../../../sdk/token.ts";
import { fitsToken, isNear } from "./compare.ts";
import type { Subject } from "./compare.ts";
import type { RecordedMetadata } from "./recording.ts";

export function metadataDifferences(
  ours: Readonly<Record<string, string>>,
  recorded: RecordedMetadata,
  subject: Subject,
): string[] {
  const token = oneOf(recorded, TOKEN_KEY);
  const expires = oneOf(recorded, TOKEN_EXPIRES_KEY);
  return [
    ...(fitsToken(ours[TOKEN_KEY] ?? "", token, subject)
      ? []
      : [`metadata ${TOKEN_KEY} says something else`]),
    ...(isNear(ours[TOKEN_EXPIRES_KEY] ?? "", expires, subject)
      ? []
      : [`metadata ${TOKEN_EXPIRES_KEY}: ours ${ours[TOKEN_EXPIRES_KEY]}, recorded ${expires}`]),
    ...pathDifferences(ours["path"], recorded["path"]?.at(-1), subject),
  ];
}

/** Compares the values of `path`; both may be absent. */
export function pathDifferences(
  ours: string | undefined,
  recorded: string | undefined,
  subject: Subject,
): string[] {
  if (ours === undefined || recorded === undefined)
    return ours === recorded
      ? []
      : [`path header: ours ${ours ?? "missing"}, recorded ${recorded ?? "missing"}`];
  const [left, right] = [readPath(ours), readPath(recorded)];
  if (left === undefined || right === undefined) return ["path header is not readable"];
  const wrong = right.tokens.flatMap((token, i) =>
    fitsToken(left.tokens[i] ?? "", token, subject) ? [] : [`path header: token ${i} says something else`],
  );
  if (left.index !== right.index) wrong.push(`path header: index ${left.index}, recorded ${right.index}`);
  if (left.tokens.length !== right.tokens.length)
    wrong.push(`path header: ${left.tokens.length} tokens, recorded ${right.tokens.length}`);
  return wrong;
}

function readPath(text: string) {
  return readRegistrationPath({ get: () => [text] });
}

function oneOf(metadata: RecordedMetadata, key: string): string {
  return metadata[key]?.[0] ?? "";
}
