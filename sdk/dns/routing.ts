/** Which servers are asked for a name, and in what order (docs/protocol.md, "Names"). Pure. */
import { isWithin } from "./name.ts";

/** Servers that belong together: those of one configuration. */
export interface ServerGroup {
  /** Addresses. */
  readonly servers: readonly string[];
  /** As `parseDomain` writes them; none: for all names. */
  readonly domains: readonly string[];
  /** The pod's own ones, those of its resolv.conf. */
  readonly isOwn: boolean;
}

/**
 * Servers in stages: a stage is asked when those before it do not know the name, or hesitate.
 *
 * First those whose domains have the longest suffix of the name in common; where that is a domain of the pod, its own alone. Then
 * the pod's own, then all others.
 */
export function stagesFor(name: string, groups: readonly ServerGroup[]): readonly (readonly string[])[] {
  const own = groups.filter(({ isOwn }) => isOwn);
  const stages = [closest(name.toLowerCase(), own, groups), own, groups];
  const seen = new Set<string>();
  return stages
    .map((stage) =>
      stage.flatMap(({ servers }) => servers).filter((server) => !seen.has(server) && seen.add(server)),
    )
    .filter((servers) => servers.length > 0);
}

function closest(name: string, own: readonly ServerGroup[], groups: readonly ServerGroup[]): ServerGroup[] {
  const matchOf = ({ domains }: ServerGroup) =>
    Math.max(0, ...domains.filter((domain) => isWithin(name, domain)).map((domain) => domain.length));
  if (own.some((group) => matchOf(group) > 0)) return own.filter((group) => matchOf(group) > 0);
  const best = Math.max(0, ...groups.map(matchOf));
  return best === 0 ? [] : groups.filter((group) => matchOf(group) === best);
}

/** The search domains, the pod's own first, each once. */
export function searchDomainsOf(groups: readonly ServerGroup[]): readonly string[] {
  const ordered = [...groups.filter(({ isOwn }) => isOwn), ...groups];
  return [...new Set(ordered.flatMap(({ domains }) => domains))];
}
