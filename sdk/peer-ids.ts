/** Which SPIFFE ids a role may have: what daemons pin each other by (docs/protocol.md, "Identity"). */
import type { Variable } from "./config.ts";
import { LruMap } from "./lru.ts";
import { matchesAny, parseIdPattern, parseSpiffeId, trustDomainId } from "./spiffe/id.ts";

const MOST_DOMAINS = 1024;

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

/** As {@link idMatcher}, with paths that count within each id's own trust domain: whoever the mesh trusts to speak for that domain. */
export function idMatcherOfAnyDomain(patterns: IdPatterns): (spiffeId: string) => boolean {
  const byDomain = new LruMap<string, (spiffeId: string) => boolean>(MOST_DOMAINS);
  return (spiffeId) => {
    const { trustDomain } = parseSpiffeId(spiffeId);
    const matches = byDomain.get(trustDomain) ?? idMatcher(patterns, trustDomain);
    byDomain.set(trustDomain, matches);
    return matches(spiffeId);
  };
}

function expand(pattern: string, trustDomain: string): string {
  return pattern.startsWith("/") ? `${trustDomainId(trustDomain)}${pattern}` : pattern;
}
