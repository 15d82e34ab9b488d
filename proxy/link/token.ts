/**
 * The token that one domain's operator hands to another's (docs/links.md, "Token"): a secret that is good once, and what the one
 * who joins must know to be sure of whom it talks to. Pure but for the hash.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import * as z from "zod";
import { NsmError } from "../../sdk/errors.ts";
import { parseAddress } from "../../sdk/grpc/address.ts";
import { isSpiffeId } from "../../sdk/spiffe/id.ts";

const PREFIX = "nsm1.";
const SECRET_BYTES = 32;
const MAX_TOKEN_LENGTH = 8192;
const MAX_ADDRESSES = 8;

/** Names by which others know a domain: they stand behind the `@` of services, and in file names. */
const DOMAIN = /^[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?$/;

export interface LinkToken {
  /** Names the secret at the one that made it. */
  readonly id: string;
  /** base64url of 32 random bytes. */
  readonly secret: string;
  /** Where the proxy that made it can be dialled: `tcp://host:port`. */
  readonly addresses: readonly string[];
  /** Its domain. */
  readonly domain: string;
  /** Its SPIFFE id. */
  readonly proxyId: string;
  /** SHA-256 (hex) of the CA certificate (DER) that its chain ends at. */
  readonly caSha256: string;
}

const Content = z.strictObject({
  i: z.string().regex(/^[A-Za-z0-9_-]{8,64}$/),
  s: z.string().refine(isSecret),
  a: z.array(z.string().refine(isTcpAddress)).min(1).max(MAX_ADDRESSES),
  d: z.string().regex(DOMAIN),
  p: z.string().refine(isSpiffeId),
  c: z.string().regex(/^[0-9a-f]{64}$/),
});

export function formatToken({ id, secret, addresses, domain, proxyId, caSha256 }: LinkToken): string {
  const content = { i: id, s: secret, a: addresses, d: domain, p: proxyId, c: caSha256 };
  return `${PREFIX}${Buffer.from(JSON.stringify(content)).toString("base64url")}`;
}

/** Throws INVALID_ARGUMENT `bad-token`; the message holds nothing of it. */
export function parseToken(text: string): LinkToken {
  const token = text.trim();
  if (!token.startsWith(PREFIX))
    throw bad(`it does not begin with ${PREFIX}: copy the whole line that nsm link token printed`);
  if (token.length > MAX_TOKEN_LENGTH) throw bad("it is too long");
  const content = Content.safeParse(decode(token.slice(PREFIX.length)));
  if (!content.success)
    throw bad("a part of it is missing or changed: copy the whole line that nsm link token printed");
  const { i: id, s: secret, a: addresses, d: domain, p: proxyId, c: caSha256 } = content.data;
  return { id, secret, addresses, domain, proxyId, caSha256 };
}

/** What is kept of a secret. */
export function hashOfSecret(secret: string): string {
  return createHash("sha256").update(Buffer.from(secret, "base64url")).digest("hex");
}

/** In constant time. */
export function fitsHash(secret: string, hash: string): boolean {
  const [a, b] = [Buffer.from(hashOfSecret(secret), "hex"), Buffer.from(hash, "hex")];
  return a.length === b.length && timingSafeEqual(a, b);
}

export function isDomainName(text: string): boolean {
  return DOMAIN.test(text);
}

export function isTcpAddress(url: string): boolean {
  try {
    const address = parseAddress(url);
    return url.startsWith("tcp://") && address.kind === "tcp" && address.host !== "" && address.port > 0;
  } catch {
    return false;
  }
}

function isSecret(text: string): boolean {
  const bytes = Buffer.from(text, "base64url");
  return bytes.length === SECRET_BYTES && bytes.toString("base64url") === text;
}

function decode(text: string): unknown {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) return undefined;
  try {
    return JSON.parse(Buffer.from(text, "base64url").toString("utf8"));
  } catch {
    return undefined;
  }
}

function bad(why: string): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-token", `the token cannot be read: ${why}`);
}
