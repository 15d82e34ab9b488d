/** The federation file: which trust domains are asked for their bundles, where, and how their endpoints prove who they are. Pure. */
import { isAbsolute } from "node:path";
import * as z from "zod";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { parseEndpointUrl } from "../sdk/spiffe/bundle-fetch.ts";
import { parseTrustDomain, parseWorkloadId } from "../sdk/spiffe/id.ts";
import { parseYamlAs } from "../sdk/yaml.ts";

const common = {
  trustDomain: z.string(),
  url: z.string(),
  /** Redirects may lead to addresses of private networks. */
  redirectsToPrivate: z.boolean().optional(),
  /** Shorter refresh hints of the domain count as this. */
  leastRefreshSeconds: z.int().min(1).max(86_400).optional(),
};

const File = z.strictObject({
  federation: z.array(
    z.discriminatedUnion("profile", [
      z.strictObject({ ...common, profile: z.literal("https_web") }),
      z.strictObject({
        ...common,
        profile: z.literal("https_spiffe"),
        /** SPIFFE id of the endpoint. */
        endpointId: z.string(),
        /** Absolute path of a SPIFFE bundle document of this trust domain: what counts until the first one is fetched. */
        initialBundle: z.string().refine(isAbsolute, "must be an absolute path").optional(),
      }),
    ]),
  ),
});

export type Relationship = z.infer<typeof File>["federation"][number];

/** Throws INVALID_ARGUMENT `bad-federation` that lists every fault. */
export function parseRelationships(text: string, ownDomain: string): readonly Relationship[] {
  let list: readonly Relationship[];
  try {
    list = parseYamlAs(text, File).federation;
  } catch (error) {
    throw bad([messageOf(error)]);
  }
  const faults = list.flatMap((each) => faultsOf(each, ownDomain));
  const names = list.map(({ trustDomain }) => trustDomain);
  for (const name of new Set(names.filter((each, i) => names.indexOf(each) !== i)))
    faults.push(`trust domain ${name} appears twice`);
  if (faults.length > 0) throw bad(faults);
  return list;
}

function faultsOf(relationship: Relationship, ownDomain: string): string[] {
  const { trustDomain, url } = relationship;
  const checks = [
    () => parseTrustDomain(trustDomain),
    () => parseEndpointUrl(url),
    () => relationship.profile === "https_spiffe" && parseWorkloadId(relationship.endpointId),
  ];
  const faults = checks.flatMap((check) => {
    try {
      check();
      return [];
    } catch (error) {
      return [messageOf(error)];
    }
  });
  if (trustDomain === ownDomain) faults.push(`trust domain ${trustDomain} is the own one`);
  return faults;
}

function bad(faults: readonly string[]): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-federation", `federation:\n  ${faults.join("\n  ")}`);
}
