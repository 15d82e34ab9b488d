/** Who is who in a run: the registrations of its identity authority, by group and network namespace. */
import { statSync } from "node:fs";
import { namespaceFile } from "./namespaces.ts";
import { TRUST_DOMAIN, namespaceOf } from "./topology.ts";
import type { Topology } from "./topology.ts";

export interface Registration {
  readonly id: string;
  readonly match: { readonly uid: number; readonly gid: number; readonly netns?: number };
}

/**
 * The operator of a run: whoever has the user and group of the driver, in any namespace, so that the shell that started the
 * demo can also look at the mesh, from its nodes too. Its parts have groups of their own.
 */
export function operator(): Registration {
  const [uid = -1, gid = -1] = [process.getuid?.(), process.getgid?.()];
  return { id: `spiffe://${TRUST_DOMAIN}/operator/demo`, match: { uid, gid } };
}

/** The file that NSM_IDENTITY_REGISTRATIONS names. The namespaces must exist. */
export function registrationsOf(topology: Topology, more: readonly Registration[] = []): string {
  const registrations = topology.parts.flatMap((part): Registration[] => {
    if (part.spiffePath === undefined) return [];
    const netns = statSync(namespaceFile(namespaceOf(topology.run, part.place))).ino;
    return [{ id: `spiffe://${TRUST_DOMAIN}/${part.spiffePath}`, match: { uid: 0, gid: part.gid, netns } }];
  });
  return `${JSON.stringify({ registrations: [...registrations, ...more] }, undefined, 2)}\n`; // JSON is YAML
}
