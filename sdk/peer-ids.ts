/** Which SPIFFE ids a role may have: what daemons pin each other by (docs/protocol.md, "Identity"). */
import type { Variable } from "./config.ts";
import { matchesAny, parseIdPattern, trustDomainId } from "./spiffe/id.ts";

/** Full patterns (`spiffe://example.org/nsmgr/*`), or paths within the own trust domain (`/nsmgr/*`). */
export type IdPatterns = readonly string[];

/** A list of patterns in the environment; a `*` stands for one whole path segment. `none` is the empty list. */
export function idPatterns(env: string, fallback: string, help: string): Variable<IdPatterns> {
  return {
    env,
    type: "SPIFFE id pattern list",
    fallback,
    help,
    parse: (text) => {
      const patterns = text === "none" ? [] : text.split(",");
      for (const pattern of patterns) parseIdPattern(expand(pattern, "example.org"));
      return patterns;
    },
  };
}

/** `trustDomain`: the own one. */
export function idMatcher(patterns: IdPatterns, trustDomain: string): (spiffeId: string) => boolean {
  const parsed = patterns.map((pattern) => parseIdPattern(expand(pattern, trustDomain)));
  return (spiffeId) => matchesAny(parsed, spiffeId);
}

function expand(pattern: string, trustDomain: string): string {
  return pattern.startsWith("/") ? `${trustDomainId(trustDomain)}${pattern}` : pattern;
}
