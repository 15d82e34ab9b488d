/** Domains that are found without DNS: a file that says where their registries and proxies are (docs/protocol.md, "Domains"). */
import * as z from "zod";
import { fits } from "../sdk/domains/dns-domains.ts";
import type { DomainTrust } from "../sdk/domains/peers.ts";
import type { DomainResolver } from "../sdk/domains/resolver.ts";
import { parseTrustDomain } from "../sdk/spiffe/id.ts";
import { parseYamlAs } from "../sdk/yaml.ts";

const url = z.string().regex(/^tcp:\/\/\S+:\d{1,5}$/, { error: "is no tcp://address:port" });
const trustDomain = z.string().refine((text) => isTrustDomain(text), { error: "is no trust domain" });
const File = z
  .strictObject({
    domains: z
      .record(
        z.string().regex(/^[^@\s]+$/),
        z.strictObject({ registry: url, proxy: url.optional(), trustDomain: trustDomain.optional() }),
      )
      .refine((domains) => !speaksTwice(domains), { error: "two domains have the same trustDomain" }),
  })
  .nullable();

export interface DomainAddresses {
  readonly registry: string;
  /** None: it is a registry alone. */
  readonly proxy?: string | undefined;
  /** Where it is not that of this mesh, or of the same name as the domain. */
  readonly trustDomain?: string | undefined;
}

export type DomainTable = ReadonlyMap<string, DomainAddresses>;

/** Throws INVALID_ARGUMENT `bad-yaml`. */
export function parseDomains(text: string): DomainTable {
  return new Map(Object.entries(parseYamlAs(text, File)?.domains ?? {}));
}

/** For domains that the table has not, `others` may. */
export function trustByTable(table: () => DomainTable, others: DomainTrust): DomainTrust {
  return {
    domainOf(trustDomain) {
      for (const [domain, each] of table()) if ((each.trustDomain ?? domain) === trustDomain) return domain;
      return others.domainOf(trustDomain);
    },
    mayAnswer(domain, trustDomain, own) {
      const known = table().get(domain);
      if (known === undefined) return others.mayAnswer(domain, trustDomain, own);
      return fits(domain, known.trustDomain, trustDomain, own);
    },
  };
}

/** What the table has not, `others` may know. */
export function resolveByTable(table: () => DomainTable, others: DomainResolver): DomainResolver {
  return {
    registryOf: async (domain, signal) =>
      table().get(domain)?.registry ?? (await others.registryOf(domain, signal)),
    async proxyOf(domain, signal) {
      const known = table().get(domain);
      return known === undefined ? await others.proxyOf(domain, signal) : known.proxy;
    },
  };
}

function isTrustDomain(text: string): boolean {
  try {
    return parseTrustDomain(text) === text;
  } catch {
    return false;
  }
}

function speaksTwice(
  domains: Readonly<Record<string, { readonly trustDomain?: string | undefined }>>,
): boolean {
  const all = Object.entries(domains).map(([domain, each]) => each.trustDomain ?? domain);
  return new Set(all).size < all.length;
}
