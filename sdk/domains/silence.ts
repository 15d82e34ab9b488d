/** Domains that did not answer a moment ago, as far as Requests have found out (docs/protocol.md, "Services of several domains"). */
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import { LruMap } from "../lru.ts";
import { hasDomain, splitDomain } from "./name.ts";

/** Why a proxy refuses a Request to a domain that does not answer. */
export const DOMAIN_SILENT = "domain-silent";

/** Endpoints of such a domain come last for this long. */
const SILENT_FOR_MS = 10_000;
const REMEMBERED = 256;

export interface SilentDomains {
  /** True for an endpoint whose domain did not answer. */
  has(endpoint: string): boolean;
  /** What became of a Request to an endpoint. */
  note(endpoint: string, error: unknown): void;
}

export function createSilentDomains(clock: Pick<Clock, "monotonic">): SilentDomains {
  const until = new LruMap<string, number>(REMEMBERED);
  return {
    has: (endpoint) =>
      hasDomain(endpoint) && clock.monotonic() < (until.get(splitDomain(endpoint).domain) ?? -Infinity),
    note(endpoint, error) {
      if (!hasDomain(endpoint)) return;
      const { domain } = splitDomain(endpoint);
      if (error instanceof NsmError && error.reason === DOMAIN_SILENT)
        until.set(domain, clock.monotonic() + SILENT_FOR_MS);
      else if (error === undefined) until.delete(domain);
    },
  };
}
