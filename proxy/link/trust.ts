/**
 * Whom this domain trusts, as its identity authority keeps it (docs/identity.md, "Federation"). With SPIRE, trust is its operator's,
 * and only looked at here.
 */
import type { Clock } from "../../sdk/clock.ts";
import { NsmError, codeOf } from "../../sdk/errors.ts";
import type { Logger } from "../../sdk/log.ts";
import { parseBundle } from "../../sdk/spiffe/bundle.ts";
import { createFederationClient, openOwnBundle } from "../../sdk/spiffe/federation-client.ts";
import type { X509Source } from "../../sdk/spiffe/source.ts";

/** From the authority's answer to its push. */
const WAIT_FOR_SOURCE_MS = 10_000;
/** The same for what is taken back; where somebody else has given it, too, it stays. */
const WAIT_FOR_END_MS = 2000;

export interface Trust {
  /** Own bundle document, as others should have it. */
  own(): string;
  /** Calls `listener` after each change of it, until disposed. */
  onOwnChange(listener: () => void): Disposable;
  /** True when somebody of that trust domain can be verified. */
  has(trustDomain: string): boolean;
  /**
   * Trusts the document's keys from now on; resolves when they have reached this process. Throws FAILED_PRECONDITION
   * `sequence-backwards`, `no-federation` (no such authority: its operator must do it); PERMISSION_DENIED; UNAVAILABLE.
   */
  set(trustDomain: string, document: string, signal: AbortSignal): Promise<void>;
  /** Trusts that trust domain no more; resolves when that has reached this process, unless others have it trusted. Throws PERMISSION_DENIED, UNAVAILABLE. */
  remove(trustDomain: string, signal: AbortSignal): Promise<void>;
}

export interface TrustOptions {
  readonly source: X509Source;
  /** SPIFFE_ENDPOINT_SOCKET. */
  readonly socket: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Throws as `openOwnBundle`. */
export async function openTrust(options: TrustOptions): Promise<Trust & AsyncDisposable> {
  const { source, clock } = options;
  const own = await openOwnBundle(options);
  const client = createFederationClient(options);
  const has = (trustDomain: string) => source.current().bundles.has(trustDomain);
  return {
    own: () => own.current().document.toString("utf8"),
    onOwnChange: (listener) => own.onChange(listener),
    has,
    async set(trustDomain, document, signal) {
      try {
        await client.setBundle(trustDomain, Buffer.from(document), signal);
      } catch (error) {
        if (codeOf(error) !== "UNIMPLEMENTED") throw error;
        if (has(trustDomain)) return;
        throw notFederated(trustDomain, error);
      }
      const wanted = parseBundle(document).certificates.map(({ fingerprint256 }) => fingerprint256);
      const isThere = () => {
        const known = source.current().bundles.get(trustDomain);
        const all = new Set(known?.map(({ fingerprint256 }) => fingerprint256));
        return wanted.every((each) => all.has(each));
      };
      if (await becomes(isThere, WAIT_FOR_SOURCE_MS, source, clock, signal)) return;
      throw new NsmError(
        "UNAVAILABLE",
        "not-trusted-yet",
        `the identity authority took the bundle of ${trustDomain}, and did not give it to this proxy within ${WAIT_FOR_SOURCE_MS / 1000} s`,
      );
    },
    async remove(trustDomain, signal) {
      try {
        await client.removeBundle(trustDomain, signal);
      } catch (error) {
        if (codeOf(error) !== "UNIMPLEMENTED") throw error;
        return;
      }
      await becomes(() => !has(trustDomain), WAIT_FOR_END_MS, source, clock, signal);
    },
    [Symbol.asyncDispose]: () => own[Symbol.asyncDispose](),
  };
}

/** True as soon as the condition holds, false when the time is over. Throws when `signal` aborts. */
function becomes(
  condition: () => boolean,
  withinMs: number,
  source: X509Source,
  clock: Clock,
  signal: AbortSignal,
): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>();
  const done = new DisposableStack();
  const onAbort = () => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  done.defer(() => signal.removeEventListener("abort", onAbort));
  const look = () => {
    if (condition()) resolve(true);
  };
  done.use(source.onChange(look));
  done.use(clock.timer(withinMs, () => resolve(false)));
  if (signal.aborted) onAbort();
  else look();
  return promise.finally(() => done.dispose());
}

function notFederated(trustDomain: string, cause: unknown): NsmError {
  return new NsmError(
    "FAILED_PRECONDITION",
    "no-federation",
    `the identity authority here takes no bundles (SPIRE?), and does not know the trust domain ${trustDomain}: federate it there (SPIRE: spire-server federation create, and federatesWith in the proxy's registration entry), then try again`,
    cause,
  );
}
