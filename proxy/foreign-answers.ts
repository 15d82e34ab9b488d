/** What another domain's registry may say: of itself, in reason, and not without end (docs/protocol.md, "Domains"). */
import type { NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import type { Clock } from "../sdk/clock.ts";
import { hasDomain } from "../sdk/domains/name.ts";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { checkEndpointLimits, checkServiceLimits } from "../sdk/limits.ts";
import type { Logger } from "../sdk/log.ts";
import { LruMap } from "../sdk/lru.ts";
import { matchesEndpoint, matchesNetworkService } from "../sdk/match.ts";
import type { Found, Query } from "../sdk/registry/registry.ts";

/** Records in one answer; what goes beyond is dropped. */
const MOST_RECORDS = 10_000;
/** News of one answer in this time; who says more is not listened to for as long. */
const MOST_NEWS = 2 * MOST_RECORDS;
const NEWS_MS = 10_000;
/** A domain that is told off once need not be each time. */
const WARN_MS = 60_000;
const MOST_DOMAINS = 1024;

export interface AnswerRules<T> {
  /** Names in a record that are to be those of the domain itself, which has no name for itself. */
  readonly namesOf: (entry: T) => readonly string[];
  /** Throws for a record that is too large. */
  readonly checkLimits: (entry: T) => void;
  readonly matches: (query: T, entry: T) => boolean;
}

export const serviceRules: AnswerRules<NetworkService> = {
  namesOf: ({ name }) => [name],
  checkLimits: checkServiceLimits,
  matches: matchesNetworkService,
};

export const endpointRules: AnswerRules<NetworkServiceEndpoint> = {
  namesOf: ({ name, networkServiceNames, networkServiceLabels }) => [
    name,
    ...networkServiceNames,
    ...Object.keys(networkServiceLabels),
  ],
  checkLimits: checkEndpointLimits,
  matches: matchesEndpoint,
};

export interface AnswerGuard {
  /**
   * What of a domain's answer is passed on: records that were asked for, with names of that domain. Throws RESOURCE_EXHAUSTED
   * `domain-floods`, then and for ten seconds after.
   */
  passed<T extends { readonly name: string }>(
    domain: string,
    rules: AnswerRules<T>,
    query: Query<T>,
    open: () => AsyncIterable<Found<T>>,
  ): AsyncGenerator<Found<T>>;
  /** A record that the domain has taken in. Throws UNAVAILABLE `foreign-record` for one with names of others. */
  taken<T extends { readonly name: string }>(domain: string, rules: AnswerRules<T>, entry: T): T;
}

interface Reputation {
  /** Monotonic. */
  refusedUntilMs: number;
  warnAgainMs: number;
}

export function createAnswerGuard({
  clock,
  log,
}: {
  readonly clock: Clock;
  readonly log: Logger;
}): AnswerGuard {
  const known = new LruMap<string, Reputation>(MOST_DOMAINS);
  const reputationOf = (domain: string): Reputation => {
    const found = known.get(domain) ?? { refusedUntilMs: -Infinity, warnAgainMs: -Infinity };
    known.set(domain, found);
    return found;
  };
  const warn = (domain: string, reputation: Reputation, fault: string) => {
    if (clock.monotonic() < reputation.warnAgainMs) return;
    reputation.warnAgainMs = clock.monotonic() + WARN_MS;
    log.warn({ domain, fault }, "records of another domain are dropped");
  };
  return {
    async *passed(domain, rules, query, open) {
      const reputation = reputationOf(domain);
      if (clock.monotonic() < reputation.refusedUntilMs) throw floods(domain);
      const names = new Set<string>();
      let sinceMs = clock.monotonic();
      let news = 0;
      for await (const found of open()) {
        if (clock.monotonic() - sinceMs >= NEWS_MS) [sinceMs, news] = [clock.monotonic(), 0];
        if (++news > MOST_NEWS) {
          warn(domain, reputation, `more than ${MOST_NEWS} in ${NEWS_MS / 1000} s`);
          reputation.refusedUntilMs = clock.monotonic() + NEWS_MS;
          throw floods(domain);
        }
        const { name } = found.entry;
        const fault = faultOf(rules, found.deleted ? undefined : query.entry, found.entry);
        if (fault !== undefined) warn(domain, reputation, fault);
        else if (found.deleted) {
          if (names.delete(name)) yield found;
        } else if (names.has(name) || names.size < MOST_RECORDS) {
          names.add(name);
          yield found;
        } else {
          warn(domain, reputation, `more than ${MOST_RECORDS} records`);
          if (!query.watch) return;
        }
      }
    },
    taken(domain, rules, entry) {
      const fault = faultOf(rules, undefined, entry);
      if (fault === undefined) return entry;
      throw new NsmError("UNAVAILABLE", "foreign-record", `domain ${JSON.stringify(domain)}: ${fault}`);
    },
  };
}

/** `query`: what it should fit, if that is to be seen. */
function faultOf<T extends { readonly name: string }>(
  rules: AnswerRules<T>,
  query: T | undefined,
  entry: T,
): string | undefined {
  const foreign = rules.namesOf(entry).find(hasDomain);
  if (foreign !== undefined)
    return `${JSON.stringify(foreign.slice(0, 100))} is a name of yet another domain`;
  if (entry.name === "") return "a record without a name";
  try {
    rules.checkLimits(entry);
  } catch (error) {
    return messageOf(error);
  }
  if (query !== undefined && !rules.matches(query, entry))
    return `${JSON.stringify(entry.name.slice(0, 100))} was not asked for`;
  return undefined;
}

function floods(domain: string): NsmError {
  return new NsmError(
    "RESOURCE_EXHAUSTED",
    "domain-floods",
    `domain ${JSON.stringify(domain)} says more than anybody can take in: it is asked again in ${NEWS_MS / 1000} s`,
  );
}
