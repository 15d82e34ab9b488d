/** Asks the bundle endpoint of another SPIFFE trust domain again and again (SPIFFE standard "Federation", §5). */
import type { Clock } from "../clock.ts";
import { NsmError, messageOf } from "../errors.ts";
import type { Logger } from "../log.ts";
import { parseBundle } from "./bundle.ts";
import type { Bundle } from "./bundle.ts";
import { fetchBundle } from "./bundle-fetch.ts";
import type { EndpointOptions } from "./bundle-fetch.ts";

/** How often a domain is asked that does not say. */
const DEFAULT_HINT_MS = 300_000;
/** What hints are held to. */
export const LEAST_HINT_MS = 60_000;
const LONGEST_HINT_MS = 24 * 3_600_000;

export interface PollOptions extends Omit<EndpointOptions, "signal"> {
  readonly trustDomain: string;
  /** Takes a bundle that was fetched. Throws for one that is refused (FAILED_PRECONDITION `sequence-backwards`). */
  readonly take: (document: Buffer) => Promise<void>;
  /** The hint of the bundle that is known, until the first is fetched. */
  readonly refreshHintSeconds?: number | undefined;
  /** Shorter hints count as this. Default a minute. */
  readonly leastHintMs?: number | undefined;
  readonly log: Logger;
  readonly clock: Clock;
}

/**
 * Asks now, and again after each refresh hint, until it is disposed of. A question that fails is asked again when it is time
 * (SPIFFE standard "Federation", §5.1.3: no tight loop), and what is known stays in force.
 */
export function startPolling(options: PollOptions): AsyncDisposable {
  const { trustDomain, url, take, log, clock, leastHintMs = LEAST_HINT_MS } = options;
  const closing = new AbortController();
  let hintSeconds = options.refreshHintSeconds;
  let complaint = "";
  let timer: Disposable | undefined;
  let asking: Promise<void> | undefined;

  const ask = async () => {
    try {
      const document = await fetchBundle({ ...options, signal: closing.signal });
      const bundle: Bundle = parseBundle(document);
      await take(document);
      hintSeconds = bundle.refreshHintSeconds;
      if (complaint !== "") log.info({ trustDomain, url }, "the bundle endpoint answers again");
      complaint = "";
    } catch (err) {
      if (closing.signal.aborted) return;
      // An alarm each time: somebody may be trying to bring back a key that was withdrawn.
      const isAlarm = err instanceof NsmError && err.reason === "sequence-backwards";
      if (isAlarm || messageOf(err) !== complaint)
        log[isAlarm ? "error" : "warn"](
          { err, trustDomain, url },
          "bundle of another trust domain not refreshed",
        );
      complaint = messageOf(err);
    }
    if (closing.signal.aborted) return;
    timer = clock.timer(pauseMs(hintSeconds, leastHintMs), () => {
      asking = ask();
    });
  };
  asking = ask();
  return {
    async [Symbol.asyncDispose]() {
      closing.abort(new NsmError("CANCELLED", "cancelled", "the endpoint is not asked any more"));
      timer?.[Symbol.dispose]();
      await asking;
    },
  };
}

/** A hint of 0 says as little as none. */
function pauseMs(hintSeconds: number | undefined, leastMs: number): number {
  const hintMs = hintSeconds === undefined || hintSeconds === 0 ? DEFAULT_HINT_MS : hintSeconds * 1000;
  return Math.min(Math.max(hintMs, leastMs), LONGEST_HINT_MS);
}
