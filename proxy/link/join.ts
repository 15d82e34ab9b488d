/** The side that got a token: everything until both directions are verified, or nothing is left of it (docs/links.md, "Joining"). */
import { randomBytes } from "node:crypto";
import { NsmError, messageOf } from "../../sdk/errors.ts";
import { ask, fetchPinnedBundle } from "./ask.ts";
import type { Expected } from "./ask.ts";
import type { Hub } from "./hub.ts";
import type { JoinBody } from "./redeem.ts";
import { addLink, checkFacts } from "./state.ts";
import type { Facts, LinkRecord } from "./state.ts";
import { parseToken } from "./token.ts";
import type { LinkToken } from "./token.ts";
import { parseSpiffeId } from "../../sdk/spiffe/id.ts";
import type { Trust } from "./trust.ts";

const GOODBYE_MS = 2000;

export interface JoinOptions {
  readonly hub: Hub;
  readonly trust: Trust;
  /** Where this proxy can be dialled. */
  readonly addresses: () => readonly string[];
  /** How long all of it may take. */
  readonly pendingMs: number;
  /** After the link was written down: dials. */
  readonly begin: (link: LinkRecord) => Promise<void>;
  readonly drop: (link: LinkRecord) => Promise<unknown>;
}

/**
 * Yields what was done, for people; ends when the link stands. Throws what is wrong with the token, what the other side refuses,
 * UNAVAILABLE `unreachable`, DEADLINE_EXCEEDED `not-verified`. Then, and when `signal` aborts, everything is taken back.
 */
export async function* joinByToken(
  text: string,
  options: JoinOptions,
  caller: AbortSignal,
): AsyncGenerator<string, LinkRecord, undefined> {
  const { hub, trust, pendingMs, begin, drop } = options;
  const { own, store, clock } = hub;
  const token = parseToken(text);
  const other: Facts = {
    domain: token.domain,
    trustDomain: parseSpiffeId(token.proxyId).trustDomain,
    proxyId: token.proxyId,
  };
  checkFacts(store.current(), own, other);
  const late = new AbortController();
  using timer = clock.timer(pendingMs, () => late.abort());
  void timer;
  const signal = AbortSignal.any([caller, late.signal]);
  const { url, document, expected } = await firstThatAnswers(token, hub, signal);
  yield `${token.domain} answers at ${url} and is ${token.proxyId}, as the token says`;

  const link: LinkRecord = {
    id: randomBytes(24).toString("base64url"),
    ...other,
    addresses: [url, ...token.addresses.filter((each) => each !== url)],
    dials: true,
    state: "pending",
    sinceMs: clock.now(),
    bundle: document,
    gaveBundle: !trust.has(other.trustDomain),
  };
  let isLinked = false;
  const say = (path: string, body: unknown, until: AbortSignal) =>
    ask({ url, path, body, nowMs: clock.now(), signal: until }, expected);
  try {
    await store.update((state) => addLink(state, own, link));
    hub.live(link.id).bundleHeardMs = clock.now();
    await say("/join", bodyOf(link, token, options), signal);
    yield `${token.domain} took the token, and trusts ${own.trustDomain}`;
    if (link.gaveBundle) await trust.set(other.trustDomain, document, signal);
    yield `${own.domain} trusts ${other.trustDomain}`;
    await begin(link);
    const linked = await untilLinked(link, hub, signal);
    isLinked = true;
    yield `both directions are verified: ${own.domain} and ${token.domain} are linked`;
    return linked;
  } catch (error) {
    if (caller.aborted) throw new NsmError("CANCELLED", "given-up", "given up, and taken back", error);
    if (!late.signal.aborted) throw error;
    const why = hub.live(link.id).why;
    throw new NsmError(
      "DEADLINE_EXCEEDED",
      "not-verified",
      `the link with ${token.domain} was not verified within ${pendingMs / 1000} s and is taken back${why === "" ? "" : `; the last that was heard: ${why}`}`,
      error,
    );
  } finally {
    if (!isLinked && hub.links().some(({ id }) => id === link.id)) {
      // So that it need not wait for the end of its time; who does not hear it does that.
      await say("/leave", { linkId: link.id }, AbortSignal.timeout(GOODBYE_MS)).catch(() => undefined);
      await drop(link);
    }
  }
}

async function firstThatAnswers(token: LinkToken, { clock }: Hub, signal: AbortSignal) {
  const faults: NsmError[] = [];
  for (const url of token.addresses) {
    try {
      const found: { readonly document: string; readonly expected: Expected } = await fetchPinnedBundle(
        token,
        {
          url,
          nowMs: clock.now(),
          signal,
        },
      );
      return { url, ...found };
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof NsmError)) throw error;
      faults.push(error);
    }
  }
  const [first] = faults;
  if (first !== undefined && faults.length === 1 && first.reason !== "unreachable") throw first;
  throw new NsmError(
    first?.code ?? "UNAVAILABLE",
    first?.reason ?? "unreachable",
    `${faults.map(messageOf).join("; ")}. The token names ${token.addresses.join(", ")}: can this host reach it? If only the other domain can dial out, make the token here and join there`,
  );
}

function bodyOf(link: LinkRecord, token: LinkToken, { hub, trust, addresses }: JoinOptions): JoinBody {
  const { own, clock } = hub;
  return {
    version: 1,
    token: { id: token.id, secret: token.secret },
    linkId: link.id,
    timeMs: clock.now(),
    ...own,
    bundle: trust.own(),
    addresses: [...addresses()],
  };
}

/** Resolves when the other side has called this one. Throws ABORTED `given-up` when the link went away instead. */
function untilLinked(link: LinkRecord, { store }: Hub, signal: AbortSignal): Promise<LinkRecord> {
  const { promise, resolve, reject } = Promise.withResolvers<LinkRecord>();
  const look = () => {
    const now = store.current().links.find(({ id }) => id === link.id);
    if (now?.state === "linked") resolve(now);
    else if (now?.state !== "pending")
      reject(
        new NsmError("ABORTED", "given-up", `${link.domain} has given the link up: see its proxy's log`),
      );
  };
  const onAbort = () => reject(signal.reason);
  const watch = store.onChange(look);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  else look();
  return promise.finally(() => {
    watch[Symbol.dispose]();
    signal.removeEventListener("abort", onAbort);
  });
}
