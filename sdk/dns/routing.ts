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
  /** Of a wire: its domains that lie in those of the pod are the wire's to answer, because the pod's owner says so. */
  readonly isAccepted?: boolean;
}

/** Why a server is asked: it is the pod's own, the name lies in a domain of its wire, or nobody else may know. */
export type Standing = "pod" | "domain" | "other";

export interface Asked {
  readonly server: string;
  readonly standing: Standing;
}

/**
 * Servers in stages: a stage is asked when those before it do not know the name, or hesitate.
 *
 * First those whose domains have the longest suffix of the name in common. Then the pod's own, then all others; but names within a domain of the
 * pod are for its own servers alone.
 */
export function stagesFor(name: string, groups: readonly ServerGroup[]): readonly (readonly Asked[])[] {
  const lower = name.toLowerCase();
  const own = ownOf(groups);
  const others = groups.filter((group) => !group.isOwn);
  const isPods = longest(own, lower) > 0;
  const claiming = closest(
    lower,
    isPods ? others.filter((group) => group.isAccepted === true) : others,
    longest(own, lower),
  );
  const stages: readonly (readonly ServerGroup[])[] = [claiming, own, isPods ? [] : others];
  const seen = new Set<string>();
  const ownServers = new Set(own.flatMap(({ servers }) => servers));
  return stages
    .map((stage) =>
      stage
        .flatMap(({ servers }) => servers)
        .filter((server) => !seen.has(server) && seen.add(server))
        .map((server): Asked => {
          if (ownServers.has(server)) return { server, standing: "pod" };
          return { server, standing: stage === claiming ? "domain" : "other" };
        }),
    )
    .filter((servers) => servers.length > 0);
}

/** Without servers the pod's domains are for looking names up in, and nobody's own. */
function ownOf(groups: readonly ServerGroup[]): readonly ServerGroup[] {
  return groups.filter(({ isOwn, servers }) => isOwn && servers.length > 0);
}

/** Bytes of the longest of their domains that the name lies in; 0 for none. */
function longest(groups: readonly ServerGroup[], name: string): number {
  const fitting = groups.flatMap(({ domains }) => domains).filter((domain) => isWithin(name, domain));
  return Math.max(0, ...fitting.map((domain) => domain.length));
}

function closest(name: string, groups: readonly ServerGroup[], atLeast: number): readonly ServerGroup[] {
  const best = longest(groups, name);
  return best === 0 || best < atLeast ? [] : groups.filter((group) => longest([group], name) === best);
}

/** The search domains in order, each once: those of the pod, whose names its own servers answer, and of wires. */
export function searchDomainsOf(groups: readonly ServerGroup[]): {
  readonly pods: readonly string[];
  readonly others: readonly string[];
} {
  const own = ownOf(groups);
  const pods = [...new Set(own.flatMap(({ domains }) => domains))];
  const rest = [...groups.filter(({ isOwn }) => isOwn), ...groups].filter((group) => !own.includes(group));
  return {
    pods,
    others: [...new Set(rest.flatMap(({ domains }) => domains))].filter((domain) => !pods.includes(domain)),
  };
}
