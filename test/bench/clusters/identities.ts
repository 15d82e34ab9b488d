/** Identities of several trust domains that trust one another, made in one process and used in others. */
import { X509Certificate, createPrivateKey } from "node:crypto";
import type { X509Source } from "../../../sdk/spiffe/source.ts";
import { makeAuthority } from "../../support/certificates.ts";

/** Plain JSON. */
export interface Identity {
  readonly id: string;
  readonly chainPem: string;
  readonly privateKeyPem: string;
  /** Of every trust domain, PEM. */
  readonly bundles: readonly { readonly trustDomain: string; readonly pem: string }[];
}

/** One each of the roles in each domain, whose trust domain is `<domain>.nsm`: `spiffe://<domain>.nsm/<role>`. */
export async function issueAll(
  members: readonly { readonly domain: string; readonly role: string }[],
): Promise<readonly Identity[]> {
  const domains = [...new Set(members.map(({ domain }) => domain))];
  const authorities = new Map(
    await Promise.all(domains.map(async (domain) => [domain, await makeAuthority(`${domain}.nsm`)] as const)),
  );
  const bundles = [...authorities.values()].map((authority) => ({
    trustDomain: authority.trustDomain,
    pem: [...authority.bundles.values()].flat().map(String).join(""),
  }));
  return await Promise.all(
    members.map(async ({ domain, role }) => {
      const issued = await authorities.get(domain)?.issue(`/${role}`);
      if (issued === undefined) throw new Error(`there is no domain ${domain}`);
      const { id, chainPem, privateKeyPem } = issued.svid;
      return { id, chainPem, privateKeyPem, bundles };
    }),
  );
}

/** As the Workload API would give it; it never changes. */
export function sourceOf({ id, chainPem, privateKeyPem, bundles }: Identity): X509Source {
  const leaf = new X509Certificate(chainPem);
  const svid = {
    id,
    chain: [leaf],
    chainPem,
    privateKey: createPrivateKey(privateKeyPem),
    privateKeyPem,
    notAfterMs: leaf.validToDate.getTime(),
  };
  const trusted = new Map(bundles.map(({ trustDomain, pem }) => [trustDomain, [new X509Certificate(pem)]]));
  const snapshot = { generation: 1, svid, bundles: trusted };
  return {
    current: () => snapshot,
    onChange: () => ({ [Symbol.dispose]: () => undefined }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
