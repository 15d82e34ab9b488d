/**
 * How a name is looked up: server by server in stages, and with search domains; and whose answer counts (docs/protocol.md, "Names").
 */
import type { Clock } from "../clock.ts";
import type { Asking, Suspects } from "./asking.ts";
import { encodeQuery, parseAnswer, renamed, withName } from "./message.ts";
import type { Answer, AnswerKind, Query } from "./message.ts";
import { searchDomainsOf, stagesFor } from "./routing.ts";
import type { Asked, ServerGroup, Standing } from "./routing.ts";
import { scrubbed } from "./scrub.ts";
import type { Upstreams } from "./upstream.ts";

/** The next stage of servers is asked when this one has not answered. */
const HESITATION_MS = 1000;
/** What a wire says of names that it has nothing to do with is not believed for longer. */
const LONGEST_OTHER_TTL_S = 60;

export interface Search {
  /** What is to be asked now. */
  readonly groups: () => readonly ServerGroup[];
  /** Names with fewer dots are short for names of the pod first (resolv.conf(5), `ndots`). Default 1. */
  readonly ndots?: () => number;
  readonly upstreams: Upstreams;
  readonly clock: Clock;
  readonly asking: Asking;
  readonly suspects: Suspects;
  readonly signal: AbortSignal;
}

/** An answer, and why the server was asked that gave it. */
interface Said extends Answer {
  readonly standing: Standing;
}

const RANK: Readonly<Record<AnswerKind, number>> = { positive: 3, noData: 2, nxDomain: 1, failed: 0 };

function better(a: Said | undefined, b: Said): Said {
  return a === undefined || RANK[b.kind] > RANK[a.kind] ? b : a;
}

/** A longer name that was looked up for a short one. */
interface Candidate {
  readonly query: Query;
  readonly answer: Promise<Said | undefined>;
}

/**
 * The name as it is, then with each search domain; the first that exists counts. A name of one label is hardly one by itself: the
 * others are asked for when it takes long. Undefined when nobody said anything.
 *
 * What a wire's server says of a name that the pod's search domains may complete counts when the pod's own servers know none of those names: who
 * answers faster than they would else have all the short names of the pod.
 */
export async function search(query: Query, options: Search): Promise<Answer | undefined> {
  const stop = new AbortController();
  const inner = { ...options, signal: AbortSignal.any([options.signal, stop.signal]) };
  try {
    const plain = lookUp(query, inner);
    await (query.name.includes(".") ? plain : Promise.race([plain, hesitation(options.clock, inner.signal)]));
    const known = await soFar(plain);
    const isKnown = exists(known);
    if (isKnown && (known?.standing === "pod" || !isShort(query, options))) return known;

    // All at once, so that one server that hangs costs its time only once; in order of preference.
    const domains = searchDomainsOf(options.groups());
    const pods = candidates(query, domains.pods, inner);
    const others = isKnown ? [] : candidates(query, domains.others, inner, "guess");
    const hesitated = hesitation(options.clock, inner.signal);
    const found = await firstOf(pods, query, hesitated);
    if (found !== undefined) return found;
    const guess = isKnown ? known : await firstOf(others, query, hesitated);
    if (isKnown && known?.standing === "domain") return known;
    const isOver = guess === undefined && (await soFar(plain))?.kind === "nxDomain";
    if (!isOver) {
      const late = await firstOf(pods, query);
      if (late !== undefined) return late;
      if (!(await haveSpoken(pods))) return await onlyOwn(plain);
      const other = guess ?? (await firstOf(others, query));
      if (other !== undefined) return other;
    }
    const answer = await plain;
    const rest = await Promise.all([...pods, ...others].map((each) => soFar(each.answer)));
    const isSure = rest.every((each) => each?.kind === "nxDomain");
    return isSure || answer === undefined ? answer : { ...answer, ttlSeconds: 0 };
  } finally {
    stop.abort();
  }
}

/** `guess`: it is not worth waiting for servers that hang. */
function candidates(
  query: Query,
  domains: readonly string[],
  options: Search,
  worth?: "guess",
): readonly Candidate[] {
  return domains
    .map((domain) => withName(query, `${query.name}.${domain}`))
    .filter((longer) => longer !== undefined)
    .map((longer) => ({ query: longer, answer: lookUp(longer, options, worth === "guess") }));
}

/** In their order, not in that of the answers. */
async function firstOf(
  longer: readonly Candidate[],
  query: Query,
  patience?: Promise<undefined>,
): Promise<Answer | undefined> {
  for (const { query: asked, answer } of longer) {
    const found = await (patience === undefined ? answer : Promise.race([answer, patience]));
    if (found !== undefined && exists(found)) return renamed(found, asked, query);
  }
  return undefined;
}

/** True when the pod's servers have said something of each of these names, be it that they cannot tell. */
async function haveSpoken(pods: readonly Candidate[]): Promise<boolean> {
  return (await Promise.all(pods.map(({ answer }) => answer))).every((answer) => answer !== undefined);
}

/** What others say of a name is no answer while it may be one of the pod's. */
async function onlyOwn(plain: Promise<Said | undefined>): Promise<Answer | undefined> {
  const answer = await plain;
  return answer?.standing === "other" ? undefined : answer;
}

/** It is first looked for under the pod's search domains by a stub resolver that reads the pod's resolv.conf. */
function isShort({ name }: Query, { ndots }: Search): boolean {
  return name.split(".").length - 1 < (ndots?.() ?? 1);
}

/** Undefined while it is not settled. */
function soFar<T>(promise: Promise<T>): Promise<T | undefined> {
  return Promise.race([promise, Promise.resolve(undefined)]);
}

function exists(answer: Answer | undefined): boolean {
  return answer?.kind === "positive" || answer?.kind === "noData";
}

/** Stage by stage; the best answer of those that came. A guess is not worth waiting for those that hang. Never rejects. */
export async function lookUp(query: Query, options: Search, isGuess = false): Promise<Said | undefined> {
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const found = Promise.withResolvers<void>();
  const all: Promise<void>[] = [];
  /** Those that are worth waiting for. */
  const awaited: Promise<void>[] = [];
  let best: Said | undefined;
  let answers = 0;
  const ask = async ({ server, standing }: Asked, isResponsible: boolean) => {
    using entry = options.asking.enter(query, server);
    void entry;
    const asked = options.clock.monotonic();
    try {
      const bytes = await options.upstreams.exchange(server, encodeQuery(query), signal);
      answers++;
      options.suspects.clear(server);
      const answer = saidBy(standing, parseAnswer(bytes), query, options);
      // That a name does not exist is believed of those who would know; others just do not have it.
      if (answer.kind !== "nxDomain" || isResponsible) best = better(best, answer);
      if (best?.kind === "positive") found.resolve();
    } catch {
      // Another one may answer; that nobody did is what the program hears of.
      if (options.clock.monotonic() - asked >= HESITATION_MS) options.suspects.add(server);
    }
  };
  try {
    for (const [index, servers] of stagesFor(query.name, options.groups()).entries()) {
      if (signal.aborted) break;
      const stage: Promise<void>[] = [];
      for (const asked of servers) {
        const isAwaited = (index === 0 && !isGuess) || !options.suspects.has(asked.server);
        const answered = ask(asked, index === 0);
        all.push(answered);
        if (isAwaited) stage.push(answered);
      }
      awaited.push(...stage);
      await anyOf([found.promise, Promise.all(stage), hesitation(options.clock, signal)]);
      if (exists(best)) return best;
    }
    await anyOf([found.promise, Promise.all(awaited), hesitation(options.clock, signal)]);
    if (!isGuess && (best === undefined || best.kind === "failed"))
      await anyOf([found.promise, Promise.all(all)]);
    const isSure = exists(best) || answers === all.length; // else a server that was not heard may know the name
    return isSure || best === undefined ? best : { ...best, ttlSeconds: 0 };
  } finally {
    stop.abort();
  }
}

/** Of a wire's server only what it was asked for counts, and no alias of a name of the pod. */
function saidBy(standing: Standing, answer: Answer, query: Query, { groups }: Search): Said {
  if (standing === "pod") return { ...answer, standing };
  const isPods = (name: string) =>
    stagesFor(name, groups())
      .flat()
      .every((asked) => asked.standing === "pod");
  return limited(standing, scrubbed(answer, query, isPods));
}

function limited(standing: Standing, answer: Answer): Said {
  const ttlSeconds =
    standing === "other" ? Math.min(LONGEST_OTHER_TTL_S, answer.ttlSeconds) : answer.ttlSeconds;
  return { ...answer, ttlSeconds, standing };
}

async function anyOf(promises: readonly Promise<unknown>[]): Promise<void> {
  await Promise.race(promises);
}

function hesitation(clock: Clock, signal: AbortSignal): Promise<undefined> {
  if (signal.aborted) return Promise.resolve(undefined);
  return new Promise((resolve) => {
    const timer = clock.timer(HESITATION_MS, () => resolve(undefined));
    signal.addEventListener("abort", () => timer[Symbol.dispose](), { once: true });
  });
}
