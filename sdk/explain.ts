/** Why each endpoint and forwarder is taken for a client or not, by the rules that daemons choose by (docs/protocol.md, "Matching"). Pure. */
import type { Match, NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { matchForwarders } from "./match-forwarders.ts";
import { isExpired, labelsFor, matchEndpoints } from "./match.ts";
import type { Candidate } from "./match.ts";
import { DOMAIN_LABEL, TIER_LABEL, UNREADABLE_TIER, inGroups, preferenceOf } from "./prefer.ts";
import type { Preference } from "./prefer.ts";
import { isSubset, labelOf, renderSelectorValue } from "./selector-template.ts";
import type { Labels } from "./selector-template.ts";

export type ExplainReason =
  /** The wire has it. */
  | "chosen"
  /** Asked first, in turn with others of its kind. */
  | "turn"
  /** Asked when those that are nearer do not serve. */
  | "farther"
  /** Asked when those of a better tier do not serve. */
  | "lower-tier"
  /** Asked after all others, since its domain does not answer. */
  | "domain-away"
  /** Its labels are not those that the match asks for. */
  | "selector-mismatch"
  /** Another match decides, which has no route to it. */
  | "other-match"
  /** No match fits the client. */
  | "no-match"
  | "expired"
  /** A forwarder: may be taken. */
  | "fits"
  /** A forwarder: its labels are not the match's metadata. */
  | "metadata-mismatch";

export interface Explained {
  readonly name: string;
  /** True for whom a new Request would try. */
  readonly isCandidate: boolean;
  readonly isChosen: boolean;
  readonly reason: ExplainReason;
  /** One sentence for people. */
  readonly why: string;
}

export interface ExplainedEndpoint extends Explained {
  readonly preference: Preference;
  /** Share of first tries among those that are asked first, 0 to 1. */
  readonly share: number;
  readonly url: string;
}

export interface ExplainInput {
  readonly service: NetworkService;
  /** All of the service that the registry has. */
  readonly endpoints: readonly NetworkServiceEndpoint[];
  /** Those of the client's node. */
  readonly forwarders: readonly NetworkServiceEndpoint[];
  readonly forwarderService: string;
  /** Labels of the client. */
  readonly labels: Labels;
  /** Names of who serves the wire now; undefined without one. */
  readonly current: { readonly endpoint: string; readonly forwarder: string } | undefined;
  readonly nowMs: number;
}

export interface Explanation {
  /** Index of the match that decides; undefined when the service has none, or none fits. People count from 1. */
  readonly match: number | undefined;
  /** The same for people, with the labels that it asks of clients: `match 2 of 3 (source_selector app=a)`. */
  readonly rule: string | undefined;
  /** In the order in which they are asked, then the others. */
  readonly endpoints: readonly ExplainedEndpoint[];
  readonly forwarders: readonly Explained[];
}

export function explain(input: ExplainInput): Explanation {
  const { service, labels, nowMs } = input;
  const live = input.endpoints.filter((endpoint) => !isExpired(endpoint, nowMs));
  const candidates = matchEndpoints(service, labels, live);
  const match = candidates[0]?.match ?? decidingMatch(service, labels);
  const ranked = ranksOf(candidates);
  const all = input.endpoints.map((endpoint) => explainEndpoint(endpoint, input, match, ranked));
  const rankOf = ({ name }: Explained) => ranked.get(name)?.group ?? Infinity;
  return {
    match,
    rule: match === undefined ? undefined : ruleText(service, match),
    endpoints: all.toSorted((a, b) => rankOf(a) - rankOf(b) || compare(a.name, b.name)),
    forwarders: explainForwarders(input, match),
  };
}

function ruleText({ matches }: NetworkService, index: number): string {
  const selector = textOf(matches[index]?.sourceSelector ?? {});
  return `${nameOf(index)} of ${matches.length} (${selector === "" ? "for any client" : `source_selector ${selector}`})`;
}

/** As people count the matches of a manifest. */
function nameOf(index: number): string {
  return `match ${index + 1}`;
}

function textOf(labels: Labels): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(", ");
}

interface Rank {
  /** 0 is asked first. */
  readonly group: number;
  readonly weight: number;
  readonly best: Candidate;
  readonly share: number;
}

function ranksOf(candidates: readonly Candidate[]): ReadonlyMap<string, Rank> {
  const groups = inGroups(candidates);
  const best = groups[0]?.[0];
  const ranks = new Map<string, Rank>();
  for (const [group, members] of groups.entries()) {
    const total = members.reduce((sum, { weight }) => sum + weight, 0);
    for (const { endpoint, weight } of members) {
      const known = ranks.get(endpoint.name)?.weight ?? 0; // two routes may lead to it
      const share = group === 0 ? (known + weight) / total : 0;
      if (best !== undefined) ranks.set(endpoint.name, { group, weight: known + weight, best, share });
    }
  }
  return ranks;
}

/** Of a service whose matches lead nowhere: the one at which the search ends. */
function decidingMatch({ matches }: NetworkService, labels: Labels): number | undefined {
  const fitting = [...matches.entries()].filter(([, { sourceSelector }]) => isSubset(sourceSelector, labels));
  return (fitting.find(([, { fallthrough }]) => !fallthrough) ?? fitting.at(-1))?.[0];
}

function explainEndpoint(
  endpoint: NetworkServiceEndpoint,
  input: ExplainInput,
  match: number | undefined,
  ranked: ReadonlyMap<string, Rank>,
): ExplainedEndpoint {
  const { name, url } = endpoint;
  const own = labelsFor(endpoint, input.service.name);
  const preference = preferenceOf(input.labels, own);
  const rank = ranked.get(name);
  const isChosen = input.current?.endpoint === name;
  const [reason, why] =
    rank === undefined
      ? whyNot(endpoint, input, match)
      : whyLike(rank, preference, ranked.size, labelOf(own, DOMAIN_LABEL) ?? "");
  return {
    name,
    url,
    isCandidate: rank !== undefined,
    isChosen,
    reason: isChosen ? "chosen" : reason,
    why: isChosen ? `serves the wire; for a new one: ${why}` : why,
    preference,
    share: rank?.share ?? 0,
  };
}

/** `domain`: of an endpoint of another one. */
function whyLike(
  rank: Rank,
  { tier, distance, isAway }: Preference,
  count: number,
  domain: string,
): [ExplainReason, string] {
  const { best } = rank;
  if (isAway) return ["domain-away", `the domain ${domain} does not answer: asked after all others`];
  if (rank.group === 0) {
    if (rank.share === 1) return ["turn", count === 1 ? "the only candidate" : "asked first"];
    return ["turn", `asked first in ${Math.round(rank.share * 100)} % of all turns (weight ${rank.weight})`];
  }
  if (tier > best.preference.tier)
    return [
      "lower-tier",
      `${tier === UNREADABLE_TIER ? `${TIER_LABEL} is no number from 0 to 99` : `tier ${tier}`}: asked when ${best.endpoint.name} of tier ${best.preference.tier} and its like do not serve`,
    ];
  return [
    "farther",
    `${domain !== "" && distance === "any" ? `in the domain ${domain}` : NEARNESS[distance]}: asked when ${best.endpoint.name}, ${NEARNESS[best.preference.distance]}, and its like do not serve`,
  ];
}

const NEARNESS = {
  node: "on the same node",
  zone: "in the same zone",
  cluster: "in the same cluster",
  any: "anywhere",
} as const satisfies Record<Preference["distance"], string>;

function whyNot(
  endpoint: NetworkServiceEndpoint,
  { service, labels, nowMs }: ExplainInput,
  index: number | undefined,
): [ExplainReason, string] {
  if (isExpired(endpoint, nowMs)) return ["expired", "its registration has run out"];
  const match = index === undefined ? undefined : service.matches[index];
  if (index === undefined || match === undefined)
    return ["no-match", "no match of the service fits the labels of the client"];
  const own = labelsFor(endpoint, service.name);
  if (match.routes.length === 0) return ["selector-mismatch", `${nameOf(index)} has no routes`];
  const elsewhere = service.matches.findIndex(
    (other, i) =>
      i !== index && other.routes.some((route) => isSubset(route.destinationSelector, own, labels)),
  );
  const lacking = closest(match, own, labels);
  if (elsewhere < 0) return ["selector-mismatch", `${nameOf(index)} wants ${lacking}`];
  return [
    "other-match",
    `${nameOf(index)} decides and wants ${lacking}; ${nameOf(elsewhere)} would lead to it`,
  ];
}

/** What is wrong with the route that lacks least: `app=a, not b`. */
function closest({ routes }: Match, own: Labels, client: Labels): string {
  const lacking = routes.map(({ destinationSelector }) =>
    Object.entries(destinationSelector).filter(([key, value]) => {
      const actual = labelOf(own, key) ?? "";
      return actual !== value && actual !== renderSelectorValue(value, client);
    }),
  );
  const [least = []] = lacking.toSorted((a, b) => a.length - b.length);
  if (least.length === 0) return "more labels than it has";
  return least
    .map(([key, value]) => `${key}=${wantedText(value, client)}, not ${labelOf(own, key) ?? "none"}`)
    .join("; ");
}

/** The value that a selector asks for; a slip in a template is nowhere else to be seen. */
function wantedText(value: string, client: Labels): string {
  const rendered = renderSelectorValue(value, client);
  return rendered.includes("{{") ? `${rendered} (as it stands: no template that is understood)` : rendered;
}

function explainForwarders(
  { service, labels, forwarders, forwarderService, current }: ExplainInput,
  index: number | undefined,
): Explained[] {
  const fitting = new Set(
    matchForwarders(service, labels, forwarders, forwarderService).map(({ name }) => name),
  );
  const asked = index === undefined ? {} : (service.matches[index]?.metadata?.labels ?? {});
  const wanted = Object.keys(asked).length > 0 ? asked : { p2p: "true" };
  return forwarders.map(({ name }) => {
    const isCandidate = fitting.has(name);
    const isChosen = current?.forwarder === name;
    const why = isCandidate ? "has the labels that are asked for" : `the match asks for ${textOf(wanted)}`;
    return {
      name,
      isCandidate,
      isChosen,
      reason: isChosen ? "chosen" : isCandidate ? "fits" : "metadata-mismatch",
      why,
    };
  });
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
