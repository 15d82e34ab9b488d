/**
 * Who is preferred among those that match: who answers, tiers, then nearness (docs/protocol.md, "Preferences"). Pure.
 *
 * All are labels of endpoints: components that do not know them see labels like any other, while selectors, and the metadata that
 * forwarders are chosen by, must name nothing that nobody has.
 */
import { labelOf } from "./selector-template.ts";
import type { Labels } from "./selector-template.ts";
import type { Turns, Weighted } from "./turns.ts";

/** An endpoint's label for a service: `0` (or none) is asked first, `1` when no endpoint of tier 0 serves, and so on to 99. */
export const TIER_LABEL = "nsm.io/tier";
/** A client's label, or an endpoint's for a service: `prefer` asks for near endpoints first. */
export const LOCALITY_LABEL = "nsm.io/locality";

/** Of an endpoint of another domain: which one. Written by the registry that takes it from there. */
export const DOMAIN_LABEL = "nsm.io/domain";
/** The same, while that domain does not answer: it comes after all others. */
export const AWAY_LABEL = "nsm.io/away";

/** Where a tier stands that cannot be read: behind all others, so that a slip of the pen makes no backup the primary. */
export const UNREADABLE_TIER = 100;

export type Distance = "node" | "zone" | "cluster" | "any";
const DISTANCES: readonly Distance[] = ["node", "zone", "cluster", "any"];

export interface Preference {
  /** Its domain does not answer. */
  readonly isAway: boolean;
  /** 0 to 99, or `UNREADABLE_TIER`. */
  readonly tier: number;
  /** As far as it counts: `any` where neither side asked for near endpoints. */
  readonly distance: Distance;
}

/** `client`, `endpoint`: their labels; those of the endpoint for the service. */
export function preferenceOf(client: Labels, endpoint: Labels): Preference {
  return {
    isAway: labelOf(endpoint, AWAY_LABEL) === "true",
    tier: tierOf(endpoint),
    distance: wantsNear(client, endpoint) ? distanceOf(client, endpoint) : "any",
  };
}

function tierOf(endpoint: Labels): number {
  const text = labelOf(endpoint, TIER_LABEL) ?? "0";
  return /^\d{1,2}$/.test(text) ? Number(text) : UNREADABLE_TIER;
}

function wantsNear(client: Labels, endpoint: Labels): boolean {
  return [client, endpoint].some((labels) => labelOf(labels, LOCALITY_LABEL) === "prefer");
}

/**
 * Names of nodes and zones mean something within a cluster; without a cluster's name on either side there is but one, in each domain. A
 * domain may hold endpoints of this cluster, too (one without nodes does), when both say so.
 */
export function distanceOf(client: Labels, endpoint: Labels): Distance {
  const same = (label: string) => {
    const [here, there] = [labelOf(client, label) ?? "", labelOf(endpoint, label) ?? ""];
    return here === there ? here : undefined;
  };
  const cluster = same("clusterName");
  if (cluster === undefined || (cluster === "" && (labelOf(endpoint, DOMAIN_LABEL) ?? "") !== ""))
    return "any";
  if (same("nodeName")) return "node";
  return same("zoneName") ? "zone" : "cluster";
}

/** Negative when `a` is asked before `b`. */
export function comparePreferences(a: Preference, b: Preference): number {
  return (
    Number(a.isAway) - Number(b.isAway) ||
    a.tier - b.tier ||
    DISTANCES.indexOf(a.distance) - DISTANCES.indexOf(b.distance)
  );
}

export interface Preferred {
  readonly preference: Preference;
}

/** Groups of equal preference, the best first; their members stay in order. */
export function inGroups<T extends Preferred>(candidates: readonly T[]): readonly (readonly T[])[] {
  const groups: T[][] = [];
  for (const candidate of candidates.toSorted((a, b) => comparePreferences(a.preference, b.preference))) {
    const last = groups.at(-1);
    const first = last?.[0];
    if (first !== undefined && comparePreferences(first.preference, candidate.preference) === 0)
      last?.push(candidate);
    else groups.push([candidate]);
  }
  return groups;
}

/** Whom to try, one after the other: the best first, equal ones in turn. */
export function* tries<T extends Preferred & Weighted>(
  turns: Turns,
  service: string,
  candidates: readonly T[],
): Generator<T> {
  for (const group of inGroups(candidates)) yield* turns.tries(service, group);
}
