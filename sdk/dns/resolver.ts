/**
 * A forwarding resolver for the programs of one network namespace (docs/protocol.md, "Names"): cache, search domains, servers in
 * stages, the best of their answers, and no loops.
 */
import type { Clock } from "../clock.ts";
import { createAnswerCache } from "./cache.ts";
import { createAsking, createSuspects } from "./asking.ts";
import { Rcode, errorReply, keyOf, parseQuery, withId } from "./message.ts";
import type { Answer, Query } from "./message.ts";
import { lookUp, search } from "./search.ts";
import type { Search } from "./search.ts";

/** For one question of a program, whatever has to be asked for it; the value of the Go clients. */
const ANSWER_WITHIN_MS = 5000;
/** Questions that are being answered at one time. */
const MOST_OPEN = 512;

export type ResolverOptions = Pick<Search, "groups" | "ndots" | "upstreams"> & { readonly clock: Clock };

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
