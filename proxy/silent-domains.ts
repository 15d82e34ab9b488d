/**
 * Requests to a domain that does not answer fail at once, so that whoever asks takes somebody else (docs/protocol.md, "Services of several
 * domains"): its proxy is asked for a sign of life when a Request takes long, or fails.
 */
import type { Element } from "../sdk/chain.ts";
import { DOMAIN_SILENT } from "../sdk/domains/silence.ts";
import { NsmError } from "../sdk/errors.ts";
import type { NextHop } from "../sdk/elements/target.ts";
import type { Reach } from "../sdk/reach.ts";
import type { WithSide } from "./side.ts";

/** What a domain that was silent costs whoever asks for it, until it answers again. */
const COMES_BACK_WITHIN_MS = 100;
/** From a Request that is given up until the sessions are, which may only be slow: half a second earlier the question began. */
const ENDED_AFTER_MS = 1000;

/**
 * `onSilent`: still nothing has been heard, and there is no use in what waits for an answer from there. Throws UNAVAILABLE `domain-silent`, or
 * `hop-lost` where the domain has endpoints elsewhere, too.
 */
export function refuseSilent(
  reach: Reach,
  onSilent: (way: NextHop) => void = () => undefined,
): Element<WithSide, WithSide> {
  const ending = new Set<string>();
  const endUnlessItAnswers = async (way: NextHop) => {
    if (ending.has(way.url)) return;
    ending.add(way.url);
    const isThere = await reach.answers(way, ENDED_AFTER_MS);
    ending.delete(way.url);
    if (!isThere) onSilent(way);
  };
  return (next) => ({
    async request(request, ctx) {
      const { way, domain, isSpread = false } = ctx;
      if (way === undefined || domain === undefined) return await next.request(request, ctx);
      // Who asks next may find it there, if it takes longer to answer.
      if (reach.isLost(way) && !(await reach.answers(way, COMES_BACK_WITHIN_MS)))
        throw silent(way, domain, isSpread);
      using watch = reach.watch(way, () => []);
      try {
        const signal = AbortSignal.any([ctx.signal, watch.signal]);
        return await next.request(request, { ...ctx, signal });
      } catch (error) {
        if (ctx.signal.aborted) throw error;
        if (watch.signal.aborted) {
          void endUnlessItAnswers(way);
          throw silent(way, domain, isSpread, error);
        }
        // Said by somebody behind, or because nobody is there?
        const isAway = error instanceof NsmError && error.code === "UNAVAILABLE";
        if (isAway && error.reason === DOMAIN_SILENT && !isSpread) throw error; // a link that is down, or gone, says so itself
        if (isAway && !(await reach.answers(way))) throw silent(way, domain, isSpread, error);
        throw error;
      }
    },
    // Who leaves waits for nobody who is away: the Close is told later ("Closes that wait").
    async close(connection, ctx) {
      const { way, domain, isSpread = false } = ctx;
      if (way === undefined || domain === undefined) return await next.close(connection, ctx);
      using watch = reach.watch(way, () => []);
      const lost = reach.isLost(way) ? AbortSignal.abort(silent(way, domain, isSpread)) : watch.signal;
      await next.close(connection, { ...ctx, signal: AbortSignal.any([ctx.signal, lost]) });
    },
  });
}

/** Where others of the domain's endpoints are behind other proxies it is not the domain that is silent. */
function silent(way: NextHop, domain: string, isSpread: boolean, cause?: unknown): NsmError {
  if (isSpread) {
    const text = `${way.url}, where this endpoint of domain ${JSON.stringify(domain)} is, does not answer`;
    return new NsmError("UNAVAILABLE", "hop-lost", text, cause);
  }
  const text = `domain ${JSON.stringify(domain)} does not answer: is its proxy there, and is there a way to it?`;
  return new NsmError("UNAVAILABLE", DOMAIN_SILENT, text, cause);
}
