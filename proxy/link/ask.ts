/** Questions over https to the proxy of another domain, before and beside mutual TLS: who answers is verified before anything is said. */
import { createHash } from "node:crypto";
import type { X509Certificate } from "node:crypto";
import { request as httpRequest } from "node:http";
import type { IncomingMessage } from "node:http";
import { connect } from "node:tls";
import type { TLSSocket } from "node:tls";
import * as z from "zod";
import { GrpcCode, NsmError, messageOf } from "../../sdk/errors.ts";
import type { CodeName } from "../../sdk/errors.ts";
import { parseAddress } from "../../sdk/grpc/address.ts";
import { chainOf } from "../../sdk/grpc/tls.ts";
import { parseBundle } from "../../sdk/spiffe/bundle.ts";
import { parseSpiffeId } from "../../sdk/spiffe/id.ts";
import type { X509Snapshot } from "../../sdk/spiffe/source.ts";
import { verifySvid } from "../../sdk/spiffe/verify.ts";
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
  using socket = await open(question);
  const chain = chainOf(socket.tls);
  const { status, body } = await exchange(socket.tls, { ...question, path: "/bundle" });
  if (status !== 200)
    throw notTheIssuer(url, `it publishes no bundle (status ${status}): is this a proxy with NSM_DOMAIN?`);
  const pinned = certificatesOf(body, url).filter(({ raw }) => sha256(raw) === token.caSha256);
  if (pinned.length === 0)
    throw notTheIssuer(url, "its bundle lacks the certificate authority that the token names");
  const expected = { proxyId: token.proxyId, certificates: pinned };
  check(chain, expected, question);
  return { document: body, expected };
}

/** The body of an answer with status 200. Throws what the other side says, or UNAUTHENTICATED `not-the-issuer`, UNAVAILABLE. */
export async function ask(question: Question, expected: Expected): Promise<string> {
  using socket = await open(question);
  check(chainOf(socket.tls), expected, question);
  const { status, body } = await exchange(socket.tls, question);
  if (status !== 200) throw errorOf(status, body);
  return body;
}

/** SHA-256 (hex) of the CA that our own chain ends at. Throws INTERNAL `no-own-ca`. */
export function ownCaSha256({ svid, bundles }: X509Snapshot, nowMs: number): string {
  const { trustDomain } = parseSpiffeId(svid.id);
  const chain = svid.chain.map(({ raw }) => raw);
  for (const ca of bundles.get(trustDomain) ?? []) {
    try {
      verifySvid(chain, new Map([[trustDomain, [ca]]]), nowMs);
      return sha256(ca.raw);
    } catch (error) {
      if (!(error instanceof NsmError)) throw error;
    }
  }
  throw new NsmError(
    "INTERNAL",
    "no-own-ca",
    `no CA of ${trustDomain} has signed the certificate of ${svid.id}`,
  );
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
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

interface OpenSocket extends Disposable {
  readonly tls: TLSSocket;
}

function open({ url, signal }: Pick<Question, "url" | "signal">): Promise<OpenSocket> {
  const address = parseAddress(url);
  if (address.kind !== "tcp")
    throw new NsmError("INVALID_ARGUMENT", "bad-address", `${url}: expected tcp://host:port`);
  const { host, port } = address;
  return new Promise((resolve, reject) => {
    const tls = connect({
      host,
      port,
      ALPNProtocols: ["http/1.1"],
      rejectUnauthorized: false,
      minVersion: "TLSv1.2",
    });
    const fail = (why: unknown) => {
      tls.destroy();
      reject(unreachable(url, why));
    };
    const timer = setTimeout(() => fail(`no connection within ${CONNECT_MS} ms`), CONNECT_MS);
    const onAbort = () => fail(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    tls.once("close", () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      fail("the connection was closed");
    });
    tls.on("error", fail); // stays: after the handshake it is HTTP that acts on errors
    tls.once("secureConnect", () => {
      clearTimeout(timer);
      resolve({ tls, [Symbol.dispose]: () => void tls.destroy() });
    });
    if (signal.aborted) onAbort();
  });
}

function exchange(
  socket: TLSSocket,
  { url, path, body, signal }: Question,
): Promise<{ readonly status: number; readonly body: string }> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const fail = (why: unknown) => reject(unreachable(url, why));
    const request = httpRequest({
      createConnection: () => socket,
      path,
      method: text === undefined ? "GET" : "POST",
      headers: { host: "proxy", ...(text !== undefined && { "content-length": Buffer.byteLength(text) }) },
      signal,
    });
    request.on("error", fail);
    request.on("response", (response) => {
      readAll(response).then((answer) => resolve({ status: response.statusCode ?? 0, body: answer }), fail);
    });
    request.end(text);
  });
}

async function readAll(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of response) {
    if (!Buffer.isBuffer(part)) continue;
    length += part.length;
    if (length > MAX_ANSWER_BYTES) throw new Error(`the answer has more than ${MAX_ANSWER_BYTES} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
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

function unreachable(url: string, why: unknown): NsmError {
  if (why instanceof NsmError) return why;
  return new NsmError("UNAVAILABLE", "unreachable", `cannot reach ${url}: ${messageOf(why)}`);
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
    `who answers at ${url} is not the proxy that made the token: ${why}. Nothing was told to it; if the identity of that proxy was made anew since, make a new token`,
    cause,
  );
}
