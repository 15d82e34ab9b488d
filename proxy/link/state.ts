/**
 * What a proxy knows of its links, and what may become of it (docs/links.md, "State"). Pure: each change is a function from the
 * state before to the state after, and throws what it refuses.
 *
 *     (none) ──join, redeem──> pending ──both directions verified──> linked
 *                                 │                                     │
 *                                 └──time over, given up──> leaving <──removed, told that it is over
 *                                                              └──the bundle is taken back──> (none)
 */
import * as z from "zod";
import { NsmError } from "../../sdk/errors.ts";
import { parseSpiffeId } from "../../sdk/spiffe/id.ts";
import { fitsHash } from "./token.ts";

/** Tokens that are open at once; one is a line that a person copies. */
const MOST_TOKENS = 256;
const MOST_LINKS = 256;
/** How long a link that has ended is remembered. */
export const ENDED_MS = 24 * 3_600_000;
const MOST_ENDED = 64;
/** Clocks that are farther apart make tokens of paths and certificates worthless. */
export const CLOCKS_APART_MS = 5 * 60_000;

const Token = z.strictObject({
  id: z.string(),
  /** SHA-256 of the secret, hex. */
  hash: z.string(),
  /** Wall clock. */
  expiresMs: z.number(),
  /** By whom. */
  usedBy: z.string().optional(),
});

const Link = z.strictObject({
  /** The same on both sides; known to nobody else. */
  id: z.string(),
  /** The other's. */
  domain: z.string(),
  trustDomain: z.string(),
  proxyId: z.string(),
  /** Where the other can be dialled. */
  addresses: z.array(z.string()).readonly(),
  /** This side joined: it dials and keeps the link. */
  dials: z.boolean(),
  state: z.enum(["pending", "linked", "leaving"]),
  /** Since when it is in that state; wall clock. */
  sinceMs: z.number(),
  /** The other's latest bundle document. */
  bundle: z.string(),
  /** This proxy gave the bundle to the identity authority, and takes it back. */
  gaveBundle: z.boolean(),
});

/** A link that there is no more, as long as somebody should hear of it. */
const Ended = z.strictObject({
  id: z.string(),
  domain: z.string(),
  trustDomain: z.string(),
  proxyId: z.string(),
  sinceMs: z.number(),
  /** Who removed it. */
  by: z.enum(["us", "them"]),
  /** The other side knows. */
  isTold: z.boolean(),
  /** While it has to be told: where, and what proves that it is the other side. */
  addresses: z.array(z.string()).readonly(),
  bundle: z.string(),
});

export const LinkState = z.strictObject({
  version: z.literal(1),
  tokens: z.array(Token).readonly(),
  links: z.array(Link).readonly(),
  ended: z.array(Ended).readonly().default([]),
});

export type TokenRecord = Readonly<z.infer<typeof Token>>;
export type LinkRecord = Readonly<z.infer<typeof Link>>;
export type EndedRecord = Readonly<z.infer<typeof Ended>>;
export type LinkState = Readonly<z.infer<typeof LinkState>>;

export const NO_LINKS: LinkState = { version: 1, tokens: [], links: [], ended: [] };

/** Who this proxy is. */
export interface Own {
  readonly domain: string;
  readonly trustDomain: string;
  readonly proxyId: string;
}

/** What one side says of itself. */
export type Facts = Pick<LinkRecord, "domain" | "trustDomain" | "proxyId">;

/** Throws RESOURCE_EXHAUSTED `too-many-tokens`. */
export function addToken(state: LinkState, token: TokenRecord, nowMs: number): LinkState {
  const { tokens } = forgetTokens(state, nowMs);
  if (
    tokens.filter(({ expiresMs, usedBy }) => usedBy === undefined && expiresMs > nowMs).length >= MOST_TOKENS
  )
    throw new NsmError(
      "RESOURCE_EXHAUSTED",
      "too-many-tokens",
      `${MOST_TOKENS} tokens are open: wait until some of them expire`,
    );
  return { ...state, tokens: [...tokens, token] };
}

/**
 * Uses a token up for a pending link. Throws PERMISSION_DENIED `token-unknown`, `token-used`, `token-expired`, and what
 * `addLink` throws; the token stays good then.
 */
export function redeem(
  state: LinkState,
  { id, secret }: { readonly id: string; readonly secret: string },
  own: Own,
  link: LinkRecord,
  nowMs: number,
): LinkState {
  const token = checkToken(state, { id, secret }, nowMs);
  const next = addLink(state, own, link);
  const used = { ...token, usedBy: link.domain };
  return { ...next, tokens: state.tokens.map((each) => (each === token ? used : each)) };
}

/** Throws PERMISSION_DENIED `token-unknown`, `token-used`, `token-expired`. */
export function checkToken(
  { tokens }: LinkState,
  { id, secret }: { readonly id: string; readonly secret: string },
  nowMs: number,
): TokenRecord {
  const token = tokens.find((each) => each.id === id);
  // Who does not know the secret is told nothing of the token.
  if (token === undefined || !fitsHash(secret, token.hash))
    throw refused("token-unknown", "this token is not known here, or expired long ago: make a new one");
  if (token.usedBy !== undefined)
    throw refused("token-used", `this token was used by ${token.usedBy}: make a new one`);
  if (token.expiresMs <= nowMs)
    throw refused(
      "token-expired",
      `this token expired at ${new Date(token.expiresMs).toISOString()}: make a new one`,
    );
  return token;
}

/**
 * Throws ALREADY_EXISTS `already-linked`, `domain-taken`, `proxy-taken`; INVALID_ARGUMENT `own-domain`, `own-proxy`, `foreign-id`;
 * RESOURCE_EXHAUSTED.
 */
export function addLink(state: LinkState, own: Own, link: LinkRecord): LinkState {
  checkFacts(state, own, link);
  if (state.links.some(({ id }) => id === link.id))
    throw new NsmError("INVALID_ARGUMENT", "bad-request", "this link is known already");
  if (state.links.length >= MOST_LINKS)
    throw new NsmError("RESOURCE_EXHAUSTED", "too-many-links", `there are ${MOST_LINKS} links already`);
  const ended = state.ended.filter(({ domain }) => domain !== link.domain);
  return { ...state, links: [...state.links, link], ended };
}

/** Whether that domain can be linked. Throws as `addLink`. */
export function checkFacts({ links }: LinkState, own: Own, other: Facts): void {
  const { domain, trustDomain, proxyId } = other;
  if (domain === own.domain)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "own-domain",
      `both domains are called ${domain}: give one of them another name (NSM_DOMAIN of its proxy)`,
    );
  if (proxyId === own.proxyId)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "own-proxy",
      `both proxies are ${proxyId}: give them different SPIFFE ids, or different trust domains`,
    );
  if (parseSpiffeId(proxyId).trustDomain !== trustDomain)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "foreign-id",
      `the proxy ${proxyId} is not of the trust domain ${trustDomain} that it speaks for`,
    );
  const sameName = links.find((link) => link.domain === domain);
  if (sameName !== undefined) throw nameTaken(sameName, other);
  const sameProxy = links.find((link) => link.proxyId === proxyId);
  if (sameProxy !== undefined)
    throw new NsmError(
      "ALREADY_EXISTS",
      "proxy-taken",
      `${proxyId} is linked as ${sameProxy.domain}, not ${domain}: nsm link remove ${sameProxy.domain} first`,
    );
  const sameTrust = links.find((link) => link.trustDomain === trustDomain && trustDomain !== own.trustDomain);
  if (sameTrust !== undefined)
    throw new NsmError(
      "ALREADY_EXISTS",
      "trust-domain-taken",
      `the trust domain ${trustDomain} is linked as ${sameTrust.domain}, not ${domain}: one domain speaks for a trust domain; nsm link remove ${sameTrust.domain} first`,
    );
}

function nameTaken(link: LinkRecord, { domain, trustDomain }: Facts): NsmError {
  if (link.trustDomain !== trustDomain)
    return new NsmError(
      "ALREADY_EXISTS",
      "domain-taken",
      `a domain ${domain} is linked already, with the trust domain ${link.trustDomain} instead of ${trustDomain}: give one of them another name, or nsm link remove ${domain} first`,
    );
  const remedy =
    link.state === "linked"
      ? `nsm link remove ${domain} first, or nsm link set-address ${domain} if it only has another address now`
      : "that ends by itself within a minute";
  const text = link.state === "linked" ? "is linked already" : `has a link that is ${link.state}`;
  return new NsmError("ALREADY_EXISTS", "already-linked", `the domain ${domain} ${text}: ${remedy}`);
}

/** Throws FAILED_PRECONDITION `clocks-apart`, in which both times stand. */
export function checkClocks(ownMs: number, otherMs: number): void {
  if (Math.abs(ownMs - otherMs) <= CLOCKS_APART_MS) return;
  const [own, other] = [ownMs, otherMs].map(timeText);
  throw new NsmError(
    "FAILED_PRECONDITION",
    "clocks-apart",
    `the clocks of the two domains are more than ${CLOCKS_APART_MS / 60_000} minutes apart: it is ${own} there and ${other} where it was joined; set them (NTP) and try again`,
  );
}

function timeText(ms: number): string {
  return Math.abs(ms) < 8.64e15 ? new Date(ms).toISOString() : "no time";
}

/** Changes one link; a link that is not there any more stays away. */
export function changeLink(
  state: LinkState,
  id: string,
  change: (link: LinkRecord) => LinkRecord | undefined,
): LinkState {
  return {
    ...state,
    links: state.links.flatMap((link) => (link.id === id ? (change(link) ?? []) : [link])),
  };
}

/** The link is leaving; if it stood before, it is remembered who ended it. */
export function endLink(state: LinkState, id: string, by: EndedRecord["by"], nowMs: number): LinkState {
  const link = state.links.find((each) => each.id === id);
  const next = changeLink(state, id, (each) => ({ ...each, state: "leaving", sinceMs: nowMs }));
  if (link?.state !== "linked") return next;
  const { domain, trustDomain, proxyId } = link;
  const isTold = by === "them";
  const rest = isTold ? { addresses: [], bundle: "" } : { addresses: link.addresses, bundle: link.bundle };
  const record = { id, domain, trustDomain, proxyId, sinceMs: nowMs, by, isTold, ...rest };
  const before = endedOf(state, nowMs).filter((each) => each.domain !== domain);
  return { ...next, ended: [...before, record].slice(-MOST_ENDED) };
}

/** The other side has heard of the end of a link. */
export function endWasTold(state: LinkState, id: string): LinkState {
  const told = (each: EndedRecord) => ({ ...each, isTold: true, addresses: [], bundle: "" });
  return { ...state, ended: state.ended.map((each) => (each.id === id ? told(each) : each)) };
}

/** Those that are still remembered. */
export function endedOf({ ended }: LinkState, nowMs: number): readonly EndedRecord[] {
  return ended.filter(({ sinceMs }) => sinceMs + ENDED_MS > nowMs);
}

/** Tokens are forgotten an hour after their end, so that until then it is said what became of them. */
function forgetTokens(state: LinkState, nowMs: number): LinkState {
  return { ...state, tokens: state.tokens.filter(({ expiresMs }) => expiresMs + 3_600_000 > nowMs) };
}

function refused(reason: string, message: string): NsmError {
  return new NsmError("PERMISSION_DENIED", reason, message);
}
