/**
 * Sessions end when their peer is not trusted any more: a CA was withdrawn, or a trust domain is none of ours any longer.
 *
 * A session is verified once, at its handshake, and may go on for hours. So each new set of bundles judges the chains of all
 * sessions again. What their time says is not asked here: certificates that run out are replaced in time, or their tokens fail.
 */
import { X509Certificate } from "node:crypto";
import type { Clock } from "../clock.ts";
import { NsmError, messageOf } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { X509Snapshot, X509Source } from "../spiffe/source.ts";
import type { Verify } from "./tls.ts";

export interface Shown {
  /** SPIFFE id of the peer. */
  readonly id: string;
  /** What the peer showed in the handshake, leaf first. */
  readonly chain: readonly Uint8Array[];
  /** What verified it. */
  readonly bundles: X509Snapshot["bundles"];
}

export interface Distrust extends Disposable {
  /**
   * Calls `end` once, as soon as the source's bundles do not verify that chain any more, unless disposed before; perhaps before
   * this returns, for a handshake that began before a change. With UNAVAILABLE `peer-distrusted`.
   */
  watch(shown: Shown, end: (error: NsmError) => void): Disposable;
}

export interface DistrustOptions {
  readonly source: X509Source;
  readonly verify: Verify;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Watched {
  readonly shown: Shown;
  readonly end: (error: NsmError) => void;
}

export function createDistrust({ source, verify, clock, log }: DistrustOptions): Distrust {
  const all = new Set<Watched>();
  /** Undefined until the first change: sessions of before have been verified by what was current then. */
  let newest: X509Snapshot["bundles"] | undefined;

  const judge = (watched: Watched, bundles: X509Snapshot["bundles"]) => {
    const { id, chain } = watched.shown;
    try {
      verify(chain, bundles, Math.min(clock.now(), endOf(chain)));
    } catch (cause) {
      all.delete(watched);
      log.warn({ err: cause, peer: id }, "session ended, its peer is not trusted any more");
      const text = `${id} is not trusted any more: ${messageOf(cause)}`;
      watched.end(new NsmError("UNAVAILABLE", "peer-distrusted", text, cause));
    }
  };
  const listener = source.onChange(({ bundles }) => {
    if (bundles === newest) return;
    newest = bundles;
    for (const watched of all) judge(watched, bundles);
  });
  return {
    watch(shown, end) {
      const watched = { shown, end };
      all.add(watched);
      if (newest !== undefined && newest !== shown.bundles) judge(watched, newest);
      return { [Symbol.dispose]: () => void all.delete(watched) };
    },
    [Symbol.dispose]() {
      listener[Symbol.dispose]();
      all.clear();
    },
  };
}

/** Of the leaf: a chain that has run out since is judged as of its last moment. */
function endOf([leaf]: readonly Uint8Array[]): number {
  return leaf === undefined ? Infinity : new X509Certificate(leaf).validToDate.getTime();
}
