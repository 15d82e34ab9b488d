/** The domains that are looked up in DNS, and whose word counts for them (docs/protocol.md, "Domains"). */
import type { Variable } from "../config.ts";
import { parseTrustDomain } from "../spiffe/id.ts";
import type { DomainTrust } from "./peers.ts";

export interface DnsDomains extends DomainTrust {
  /** True for a domain that is looked up. */
  has(domain: string): boolean;
  /** Those that are named. */
  readonly names: readonly string[];
}

/** `help`: what they are good for in this daemon. */
export function dnsDomains(help: string): Variable<DnsDomains> {
  return {
    env: "NSM_DNS_DOMAINS",
    type: "list of domain or domain=trust-domain",
    fallback: "none",
    help: `${help}; without a trust domain it has the one of its own name or this mesh's; * is every domain, and none is none`,
    parse: parseDnsDomains,
  };
}

/** Throws an Error that names what is wrong. */
export function parseDnsDomains(text: string): DnsDomains {
  const items = text === "" || text === "none" ? [] : text.split(",").map((item) => item.trim());
  const named = new Map(items.filter((item) => item !== "*").map(parseItem));
  const byTrustDomain = new Map([...named].map(([domain, trustDomain]) => [trustDomain ?? domain, domain]));
  if (byTrustDomain.size < named.size) throw new Error("two domains have the same trust domain");
  const isAny = items.includes("*");
  return {
    names: [...named.keys()],
    has: (domain) => isAny || named.has(domain),
    domainOf: (trustDomain) => byTrustDomain.get(trustDomain) ?? (isAny ? trustDomain : undefined),
    mayAnswer: (domain, trustDomain, own) =>
      named.has(domain) ? fits(domain, named.get(domain), trustDomain, own) : isAny,
  };
}

/** `wanted`: the domain's trust domain, if it was said. */
export function fits(domain: string, wanted: string | undefined, trustDomain: string, own: string): boolean {
  return wanted === undefined ? trustDomain === own || trustDomain === domain : trustDomain === wanted;
}

function parseItem(item: string): readonly [domain: string, trustDomain: string | undefined] {
  const [domain = "", trustDomain, ...rest] = item.split("=");
  if (!/^[^@\s*]+$/.test(domain) || rest.length > 0)
    throw new Error(`${JSON.stringify(item)} is no domain, and no domain=trust-domain`);
  return [domain, trustDomain === undefined ? undefined : parseTrustDomain(trustDomain)];
}
