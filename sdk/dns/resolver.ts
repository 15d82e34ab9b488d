/**
 * A forwarding resolver for the programs of one network namespace (docs/protocol.md, "Names"): cache, search domains, servers in
 * stages, the best of their answers, and no loops.
 */
import type { Clock } from "../clock.ts";
import { createAnswerCache } from "./cache.ts";
import {
  Rcode,
  encodeQuery,
  errorReply,
  keyOf,
  parseAnswer,
  parseQuery,
  renamed,
  withId,
  withName,
} from "./message.ts";
import type { Answer, AnswerKind, Query } from "./message.ts";
import { searchDomainsOf, stagesFor } from "./routing.ts";
import type { ServerGroup } from "./routing.ts";
import type { Upstreams } from "./upstream.ts";

/** For one question of a program, whatever has to be asked for it; the value of the Go clients. */
const ANSWER_WITHIN_MS = 5000;
/** The next stage of servers is asked when this one has not answered. */
const HESITATION_MS = 1000;
/** After that a server that did not answer gets another chance. */
const SUSPECTED_FOR_MS = 30_000;
/** Questions that are being answered at one time. */
const MOST_OPEN = 512;

export interface ResolverOptions {
  /** What is to be asked now. */
  readonly groups: () => readonly ServerGroup[];
  readonly upstreams: Upstreams;
  readonly clock: Clock;
}

/** A message to send back, and how large it may be in a datagram. */
export interface Reply {
  readonly bytes: Buffer;
  /** Undefined for what could not be read. */
  readonly query: Query | undefined;
}

export interface Resolver {
  /**
   * `from`: address of who asks. `isOwn`: it is a program of this host; others get no search domains, so that resolvers that ask
   * each other do not make names longer and longer. Undefined for what must not be answered. Never rejects.
   */
  answer(bytes: Buffer, from: string, isOwn: boolean): Promise<Reply | undefined>;
  /** Forgets what it learned: the servers have changed. */
  readonly forget: () => void;
}

/** State: the cache, and what is being asked now. */
export function createResolver(options: ResolverOptions): Resolver {
  const { clock } = options;
  const cache = createAnswerCache();
  const open = new Map<string, Promise<Answer | undefined>>();
  const asking = createAsking();
  const suspects = createSuspects(clock);
  let generation = 0;

  const resolve = async (query: Query, key: string, isOwn: boolean): Promise<Answer | undefined> => {
    const begun = generation;
    const stop = new AbortController();
    using timer = clock.timer(ANSWER_WITHIN_MS, () => stop.abort(new Error("no server answered in time")));
    void timer;
    try {
      const inner = { ...options, asking, suspects, signal: stop.signal };
      const answer = await (isOwn ? search(query, inner) : lookUp(query, inner));
      if (answer !== undefined && begun === generation) cache.set(key, answer, clock.monotonic());
      return answer;
    } finally {
      stop.abort(); // what is still being asked for it
    }
  };

  return {
    async answer(bytes, from, isOwn) {
      const query = parseQuery(bytes);
      if (query === undefined) return undefined;
      if (Buffer.isBuffer(query)) return { bytes: query, query: undefined };
      const key = `${keyOf(query)}${isOwn ? "" : " as it is"}`;
      const known = cache.get(key, clock.monotonic());
      if (known !== undefined) return { bytes: withId(known, query.id), query };
      const refused = { bytes: errorReply(query, Rcode.SERVFAIL), query };
      // A server that we are asking this asks it back: whatever we say, it must not be that we ask on.
      if (asking.has(query, from)) return refused;
      if (!open.has(key)) {
        if (open.size >= MOST_OPEN) return refused;
        // It is open before anybody is asked: the question may come back at once.
        const answering = Promise.resolve().then(() => resolve(query, key, isOwn));
        open.set(
          key,
          answering.finally(() => open.delete(key)),
        );
      }
      const answer = await open.get(key);
      return answer === undefined || answer.kind === "failed"
        ? refused
        : { bytes: withId(answer.bytes, query.id), query };
    },
    forget() {
      generation++;
      cache.clear();
    },
  };
}

interface Search extends ResolverOptions {
  readonly asking: Asking;
  readonly suspects: Suspects;
  readonly signal: AbortSignal;
}

const RANK: Readonly<Record<AnswerKind, number>> = { positive: 3, noData: 2, nxDomain: 1, failed: 0 };

function better(a: Answer | undefined, b: Answer | undefined): Answer | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return RANK[b.kind] > RANK[a.kind] ? b : a;
}

/**
 * The name as it is, then with each search domain; the first that exists counts. A name of one label is hardly one by itself: the
 * others are asked for when it takes long. Undefined when nobody said anything.
 */
async function search(query: Query, options: Search): Promise<Answer | undefined> {
  const stop = new AbortController();
  const inner = { ...options, signal: AbortSignal.any([options.signal, stop.signal]) };
  try {
    const plain = lookUp(query, inner);
    await (query.name.includes(".") ? plain : Promise.race([plain, hesitation(options.clock, inner.signal)]));
    // All at once, so that one server that hangs costs its time only once; in order of preference.
    const isKnown = exists(await soFar(plain));
    const longer = (isKnown ? [] : searchDomainsOf(options.groups()))
      .map((domain) => withName(query, `${query.name}.${domain}`))
      .filter((candidate) => candidate !== undefined)
      .map((candidate) => ({ candidate, answer: lookUp(candidate, inner, true) }));
    const hesitated = hesitation(options.clock, inner.signal);
    for (const patience of [hesitated, undefined]) {
      if (patience === undefined && (await soFar(plain))?.kind === "nxDomain") break;
      for (const { candidate, answer } of longer) {
        const found = await (patience === undefined ? answer : Promise.race([answer, patience]));
        if (found !== undefined && exists(found)) return renamed(found, candidate, query);
      }
    }
    const answer = await plain;
    const others = await Promise.all(longer.map((each) => soFar(each.answer)));
    const isSure = others.every((found) => found?.kind === "nxDomain");
    return isSure || answer === undefined ? answer : { ...answer, ttlSeconds: 0 };
  } finally {
    stop.abort();
  }
}

/** Undefined while it is not settled. */
function soFar<T>(promise: Promise<T>): Promise<T | undefined> {
  return Promise.race([promise, Promise.resolve(undefined)]);
}

function exists(answer: Answer | undefined): boolean {
  return answer?.kind === "positive" || answer?.kind === "noData";
}

/** Stage by stage; the best answer of those that came. A guess is not worth waiting for those that hang. Never rejects. */
async function lookUp(query: Query, options: Search, isGuess = false): Promise<Answer | undefined> {
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const found = Promise.withResolvers<void>();
  const all: Promise<void>[] = [];
  /** Those that are worth waiting for. */
  const awaited: Promise<void>[] = [];
  let best: Answer | undefined;
  let answers = 0;
  const ask = async (server: string, isResponsible: boolean) => {
    using entry = options.asking.enter(query, server);
    void entry;
    const asked = options.clock.monotonic();
    try {
      const bytes = await options.upstreams.exchange(server, encodeQuery(query), signal);
      answers++;
      options.suspects.clear(server);
      const answer = parseAnswer(bytes);
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
      for (const server of servers) {
        const isAwaited = (index === 0 && !isGuess) || !options.suspects.has(server);
        const answered = ask(server, index === 0);
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

/** Which server is being asked what. */
interface Asking {
  enter(query: Query, server: string): Disposable;
  has(query: Query, server: string): boolean;
}

function createAsking(): Asking {
  const counts = new Map<string, number>();
  const keyFor = ({ name, type }: Query, server: string) => `${server} ${type} ${name.toLowerCase()}`;
  return {
    enter(query, server) {
      const key = keyFor(query, server);
      counts.set(key, (counts.get(key) ?? 0) + 1);
      return {
        [Symbol.dispose]() {
          const left = (counts.get(key) ?? 1) - 1;
          if (left === 0) counts.delete(key);
          else counts.set(key, left);
        },
      };
    },
    // Programs of this host come from its loopback address, and so does a server there: it cannot be told from them.
    has: (query, server) => !isLoopback(server) && counts.has(keyFor(query, server)),
  };
}

/** Servers that were asked and did not answer in time, lately: they are still asked, but what they would have said is not waited for. */
interface Suspects {
  add(server: string): void;
  clear(server: string): void;
  has(server: string): boolean;
}

function createSuspects(clock: Clock): Suspects {
  const untilMs = new Map<string, number>();
  return {
    add: (server) => void untilMs.set(server, clock.monotonic() + SUSPECTED_FOR_MS),
    clear: (server) => void untilMs.delete(server),
    has: (server) => (untilMs.get(server) ?? -Infinity) > clock.monotonic(),
  };
}

/** 127.0.0.0/8, `::1`, and the former as IPv6. */
export function isLoopback(address: string): boolean {
  return /^(?:::ffff:)?127\./i.test(address) || address === "::1";
}
