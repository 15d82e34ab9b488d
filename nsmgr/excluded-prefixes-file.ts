/** The file with the prefixes that no endpoint may give out (docs/protocol.md, "Excluded prefixes"). */
import * as z from "zod";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { mergePrefixes } from "../sdk/excluded-prefixes.ts";
import { Limits } from "../sdk/limits.ts";
import { parsePrefix } from "../sdk/prefix.ts";
import { parseYamlAs } from "../sdk/yaml.ts";

const prefix = z.string().refine((text) => parsePrefix(text) !== undefined, {
  error: ({ input }) =>
    `${JSON.stringify(input)} is no prefix: write an address and a length, such as 10.96.0.0/12`,
});
const File = z.strictObject({ prefixes: z.array(prefix).nullish() }).nullish();

/**
 * Reads `prefixes: [10.96.0.0/12, 2001:db8::/32]` (YAML) into the fewest prefixes that say the same; an empty file has none.
 * Throws INVALID_ARGUMENT `bad-excluded-prefixes`, also for more than half of what a request may hold.
 */
export function parseExcludedPrefixes(text: string): readonly string[] {
  const merged = mergePrefixes(readFile(text));
  const most = Limits.excludedPrefixes / 2;
  if (merged.length > most)
    throw bad(`${merged.length} prefixes after merging, the limit is ${most}: exclude larger ones`);
  return merged;
}

function readFile(text: string): readonly string[] {
  try {
    return parseYamlAs(text, File)?.prefixes ?? [];
  } catch (error) {
    throw bad(`expected "prefixes: [10.96.0.0/12]": ${messageOf(error)}`);
  }
}

function bad(fault: string): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-excluded-prefixes", `excluded prefixes: ${fault}`);
}
