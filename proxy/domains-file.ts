/** Domains that are found without DNS: a file that says where their registries and proxies are (docs/protocol.md, "Domains"). */
import * as z from "zod";
import type { DomainResolver } from "../sdk/domains/resolver.ts";
import { parseYamlAs } from "../sdk/yaml.ts";

const url = z.string().regex(/^tcp:\/\/\S+:\d{1,5}$/, { error: "is no tcp://address:port" });
const File = z
  .strictObject({
    domains: z.record(
      z.string().regex(/^[^@\s]+$/),
      z.strictObject({ registry: url, proxy: url.optional() }),
    ),
  })
  .nullable();

export interface DomainAddresses {
  readonly registry: string;
  /** None: it is a registry alone. */
  readonly proxy?: string | undefined;
}

export type DomainTable = ReadonlyMap<string, DomainAddresses>;

/** Throws INVALID_ARGUMENT `bad-yaml`. */
export function parseDomains(text: string): DomainTable {
  return new Map(Object.entries(parseYamlAs(text, File)?.domains ?? {}));
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
