/** Who is who in a run: the registrations of its identity authorities, by group and network namespace. */
import { statSync, writeFileSync } from "node:fs";
import { namespaceFile } from "./commands.ts";
import { namespaceOf, registrationsFile } from "./topology.ts";
import type { Site, Topology } from "./topology.ts";

export interface Registration {
  readonly id: string;
  readonly match: { readonly uid: number; readonly gid: number; readonly netns?: number };
}

/**
 * The operator of a run: whoever has the user and group of the driver, in any namespace, so that the shell that started the
 * demo can also look at the mesh, from its nodes too. Its parts have groups of their own.
 */
export function operator(site: Site): Registration {
  const [uid = -1, gid = -1] = [process.getuid?.(), process.getgid?.()];
  return { id: `spiffe://${site.trustDomain}/operator/demo`, match: { uid, gid } };
}

/** Writes the file of each authority (NSM_IDENTITY_REGISTRATIONS), with `more` for each. The namespaces must exist. */
export function writeRegistrations(topology: Topology, more: (site: Site) => readonly Registration[]): void {
  const { sites, folder } = topology;
  for (const site of new Map(sites.map((each) => [each.authority, each])).values()) {
    const registrations = [...registrationsOf(topology, site), ...more(site)];
    const text = `${JSON.stringify({ registrations }, undefined, 2)}\n`; // JSON is YAML
    writeFileSync(registrationsFile(folder, site.authority), text);
  }
}

function registrationsOf({ run, parts }: Topology, { authority }: Site): readonly Registration[] {
  return parts.flatMap(({ site, place, gid, spiffePath }) => {
    if (site.authority !== authority || spiffePath === undefined) return [];
    const netns = statSync(namespaceFile(namespaceOf(run, place))).ino;
    return [{ id: `spiffe://${site.trustDomain}/${spiffePath}`, match: { uid: 0, gid, netns } }];
  });
}
