/** Prefixes that endpoints must not give out (docs/protocol.md, "Excluded prefixes"). Pure. */
import { mergeRanges } from "./ipam/pool.ts";
import { formatPrefix, parsePrefix, prefixesOf, rangeOf } from "./prefix.ts";

/** The fewest prefixes that hold the same addresses, in order. Texts that are no prefixes are left out. */
export function mergePrefixes(texts: readonly string[]): readonly string[] {
  const prefixes = texts.map((text) => parsePrefix(text)).filter((prefix) => prefix !== undefined);
  return mergeRanges(prefixes.map(rangeOf)).flatMap(prefixesOf).map(formatPrefix);
}
