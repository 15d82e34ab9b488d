/** Questions over https to the proxy of another domain, before and beside mutual TLS: who answers is verified before anything is said. */
import type { X509Certificate } from "node:crypto";
import * as z from "zod";
import { GrpcCode, NsmError, asNsmError, messageOf } from "../../sdk/errors.ts";
import type { CodeName } from "../../sdk/errors.ts";
import { parseAddress } from "../../sdk/grpc/address.ts";
import { askOverHttps } from "../../sdk/https-question.ts";
import { parseBundle } from "../../sdk/spiffe/bundle.ts";
import { parseSpiffeId } from "../../sdk/spiffe/id.ts";
import { verifySvid } from "../../sdk/spiffe/verify.ts";
import { sha256 } from "./pin.ts";
import type { LinkToken } from "./token.ts";

const CONNECT_MS = 5000;
const MAX_ANSWER_BYTES = 2 * 1024 * 1024;

/** Who is expected at the other end: an id, and the CAs of its trust domain. */
export interface Expected {
  readonly proxyId: string;
  readonly certificates: readonly X509Certificate[];
}

export interface Question {
  readonly url: string;
  readonly path: string;
  /** With it the question is a POST. */
  readonly body?: unknown;
  /** What this side shows of itself (PEM); nothing unless told. */
  readonly own?: { readonly key: string; readonly cert: string };
  readonly nowMs: number;
  readonly signal: AbortSignal;
}

/**
 * What the issuer of a token publishes of its trust domain, once it has shown that it is the one that the token names.
 *
 * Throws UNAUTHENTICATED `not-the-issuer` (somebody else answers there), UNAVAILABLE `unreachable`.
 */
export async function fetchPinnedBundle(
  token: Pick<LinkToken, "proxyId" | "caSha256">,
  question: Omit<Question, "path">,
): Promise<{ readonly document: string; readonly expected: Expected }> {
  const { url } = question;
  let chain: readonly Uint8Array[] = [];
  // Who it is can be told by what it says alone; nothing is said to it before.
  const { status, text } = await exchange({ ...question, path: "/bundle" }, (shown) => (chain = shown));
  if (status !== 200)
    throw notTheIssuer(url, `it publishes no bundle (status ${status}): is this a proxy with NSM_DOMAIN?`);
  const pinned = certificatesOf(text, url).filter(({ raw }) => sha256(raw) === token.caSha256);
  if (pinned.length === 0)
    throw notTheIssuer(url, "its bundle lacks the certificate authority that the token names");
  const expected = { proxyId: token.proxyId, certificates: pinned };
  check(chain, expected, question);
  return { document: text, expected };
}

/** The body of an answer with status 200. Throws what the other side says, or UNAUTHENTICATED `not-the-issuer`, UNAVAILABLE. */
export async function ask(question: Question, expected: Expected): Promise<string> {
  const { status, text } = await exchange(question, (chain) => check(chain, expected, question));
  if (status !== 200) throw errorOf(status, text);
  return text;
}

function certificatesOf(document: string, url: string): readonly X509Certificate[] {
  try {
    return parseBundle(document).certificates;
  } catch (error) {
    throw notTheIssuer(url, `what it publishes is no bundle: ${messageOf(error)}`, error);
  }
}

function check(
  chain: readonly Uint8Array[],
  { proxyId, certificates }: Expected,
  question: Question | Omit<Question, "path">,
): void {
  const { url, nowMs } = question;
  const bundles = new Map([[parseSpiffeId(proxyId).trustDomain, certificates]]);
  try {
    const { id } = verifySvid(chain, bundles, nowMs);
    if (id !== proxyId) throw notTheIssuer(url, `it is ${id}, and ${proxyId} was expected`);
  } catch (error) {
    if (error instanceof NsmError && error.reason === "not-the-issuer") throw error;
    if (error instanceof NsmError && OF_CLOCKS.has(error.reason)) throw clocksApart(url, nowMs, error);
    throw notTheIssuer(url, messageOf(error), error);
  }
}

/** Throws what `onChain` throws, INVALID_ARGUMENT `bad-address`, UNAVAILABLE `unreachable`. */
async function exchange(
  { url, path, body, own, signal }: Question,
  onChain: (chain: readonly Uint8Array[]) => void,
): Promise<{ readonly status: number; readonly text: string }> {
  const address = parseAddress(url);
  if (address.kind !== "tcp")
    throw new NsmError("INVALID_ARGUMENT", "bad-address", `${url}: expected tcp://host:port`);
  const { host, port } = address;
  try {
    const answer = await askOverHttps({
      host,
      port,
      path,
      headers: { host: "proxy" },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      ...(own !== undefined && { own }),
      check: onChain,
      connectMs: CONNECT_MS,
      maxBytes: MAX_ANSWER_BYTES,
      signal,
    });
    return { status: answer.status, text: answer.body.toString("utf8") };
  } catch (error) {
    throw asNsmError(error, "UNAVAILABLE", "unreachable", `cannot reach ${url}`);
  }
}

const Refusal = z.object({ code: z.string(), reason: z.string(), message: z.string() });

/** What `refusalOf` wrote. */
function errorOf(status: number, body: string): NsmError {
  try {
    const { code, reason, message } = Refusal.parse(JSON.parse(body));
    return new NsmError(isCode(code) ? code : "UNAVAILABLE", reason, message);
  } catch {
    return new NsmError("UNAVAILABLE", "bad-answer", `the other proxy answered with status ${status}`);
  }
}

function isCode(word: string): word is CodeName {
  return Object.hasOwn(GrpcCode, word) && word !== "OK";
}

const OF_CLOCKS: ReadonlySet<string> = new Set(["svid-expired", "svid-not-yet-valid"]);

function clocksApart(url: string, nowMs: number, cause: NsmError): NsmError {
  return new NsmError(
    "FAILED_PRECONDITION",
    "clocks-apart",
    `the certificate of ${url} does not hold now: ${cause.message}, and it is ${new Date(nowMs).toISOString()} here. Nothing was told to it. Set the clocks of both sides (NTP), then try again`,
    cause,
  );
}

function notTheIssuer(url: string, why: string, cause?: unknown): NsmError {
  return new NsmError(
    "UNAUTHENTICATED",
    "not-the-issuer",
    `who answers at ${url} is not the proxy that is expected there: ${why}. Nothing was told to it; if the identity of that proxy was made anew since, link the domains by a new token`,
    cause,
  );
}
