/**
 * Path tokens: how this process makes its own, how a call carries them, and where they stand in a path (docs/protocol.md,
 * "Tokens"). A token says: "`sub` speaks to `aud` until `exp`", signed with the key of the X.509-SVID that `sub` shows in TLS.
 */
import { create } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import type { Path } from "../api/gen/connection_pb.js";
import type { Clock } from "./clock.ts";
import { NsmError } from "./errors.ts";
import { isP256, parseToken, signToken, subjectOf } from "./jwt.ts";
import { LruMap } from "./lru.ts";
import { meters } from "./metrics/meters.ts";
import { formatInstant, instantMs, instantOfMs, parseInstant } from "./rfc3339.ts";
import type { Instant } from "./rfc3339.ts";
import type { X509Svid } from "./spiffe/source.ts";

/** Call metadata that carries the caller's token; each has exactly one value. */
export const TOKEN_KEY = "nsm-client-token";
export const TOKEN_EXPIRES_KEY = "nsm-client-token-expires";

/** Default of NSM_MAX_TOKEN_LIFETIME. */
export const DEFAULT_TOKEN_LIFETIME_MS = 600_000;

/** A token is made anew after this part of its life. */
const REUSED_PART_OF_LIFE = 0.1;
const REMEMBERED_PEERS = 1024;

/** A token with the expiry that travels beside it. The expiry is the sender's word, not the claim `exp`. */
export interface PathToken {
  readonly token: string;
  readonly expires: Instant;
  /** `expires` in milliseconds since 1970. */
  readonly expiresMs: number;
}

export interface TokenMinter {
  /**
   * This process's token for a peer, signed with the key of `own`: the identity that it shows in the session with that peer.
   * Lives at most the configured time and no longer than either certificate; `peerNotAfterMs` bounds only the expiry beside the
   * token. Without `peerId` the token has no audience. A token is used again during the first tenth of its life.
   *
   * Throws FAILED_PRECONDITION `identity-key` when the key of `own` is not ECDSA P-256.
   */
  mint(own: X509Svid, peerId?: string, peerNotAfterMs?: number): PathToken;
}

/** `maxLifetimeMs`: NSM_MAX_TOKEN_LIFETIME. */
export function createTokenMinter(options: { clock: Clock; maxLifetimeMs?: number }): TokenMinter {
  const { clock, maxLifetimeMs = DEFAULT_TOKEN_LIFETIME_MS } = options;
  // Keyed by the SVID object: a rotated SVID takes its tokens with it.
  const bySvid = new WeakMap<X509Svid, LruMap<string, { token: PathToken; staleAtMs: number }>>();
  return {
    mint(own, peerId, peerNotAfterMs) {
      const nowMs = clock.now();
      const key = `${peerNotAfterMs ?? ""} ${peerId ?? ""}`;
      let made = bySvid.get(own);
      if (made === undefined) bySvid.set(own, (made = new LruMap(REMEMBERED_PEERS)));
      const known = made.get(key);
      // A clock that jumped back must not stretch a token's use: it was made at most now.
      if (known !== undefined && nowMs < known.staleAtMs && known.token.expiresMs - nowMs <= maxLifetimeMs)
        return known.token;
      const token = makeToken(own, peerId, peerNotAfterMs, nowMs + maxLifetimeMs);
      meters.tokensMinted.inc({});
      made.set(key, { token, staleAtMs: nowMs + (token.expiresMs - nowMs) * REUSED_PART_OF_LIFE });
      return token;
    },
  };
}

/** The metadata of a call that carries `token`. */
export function writeTokenMetadata(token: PathToken): Readonly<Record<string, string>> {
  return { [TOKEN_KEY]: token.token, [TOKEN_EXPIRES_KEY]: formatInstant(token.expires) };
}

/** Undefined unless there is exactly one token and exactly one readable expiry. The token's text is not looked at. */
export function readTokenMetadata(metadata: { get(key: string): readonly string[] }): PathToken | undefined {
  const [token, ...moreTokens] = metadata.get(TOKEN_KEY);
  const [expiry, ...moreExpiries] = metadata.get(TOKEN_EXPIRES_KEY);
  if (token === undefined || expiry === undefined || moreTokens.length > 0 || moreExpiries.length > 0)
    return undefined;
  const expires = parseInstant(expiry);
  return expires === undefined ? undefined : { token, expires, expiresMs: instantMs(expires) };
}

/**
 * A server's step after it entered the path: the caller's token into the caller's segment, its own into its own. Without a
 * caller's token that segment keeps what the caller wrote. Paths whose index is beyond their segments stay as they are.
 */
export function placeTokens(path: Path, callers: PathToken | undefined, own: PathToken): void {
  if (callers !== undefined) placeToken(path, path.index - 1, callers);
  placeToken(path, path.index, own);
}

/**
 * Our token for the next hop, once more with the key of `own`: the identity that a caller has seen of us may be an older one
 * than the next hop has, and the caller verifies the token with what it has seen. Undefined for a token that is not ours.
 */
export function signAgain(minter: TokenMinter, own: X509Svid, token: string): PathToken | undefined {
  if (subjectOf(token) !== own.id) return undefined;
  const audience = parseToken(token)?.claims?.get("aud");
  const [peerId] = Array.isArray(audience) ? audience : [audience];
  return typeof peerId === "string" ? minter.mint(own, peerId) : undefined;
}

function placeToken(path: Path, index: number, token: PathToken): void {
  const segment = path.pathSegments[index];
  if (segment === undefined) return;
  segment.token = token.token;
  segment.expires = create(TimestampSchema, token.expires);
}

function makeToken(
  own: X509Svid,
  peerId: string | undefined,
  peerNotAfterMs: number | undefined,
  latestMs: number,
): PathToken {
  if (!isP256(own.privateKey)) {
    const { asymmetricKeyType, asymmetricKeyDetails } = own.privateKey;
    throw new NsmError(
      "FAILED_PRECONDITION",
      "identity-key",
      `the X.509-SVID of ${own.id} has a key of type ${asymmetricKeyType} ${asymmetricKeyDetails?.namedCurve ?? ""}; ` +
        "path tokens need ECDSA P-256: set the authority's key type to ec-p256",
    );
  }
  const claimMs = Math.min(latestMs, own.notAfterMs);
  const audience = peerId === undefined ? {} : { aud: [peerId] };
  const token = signToken({ sub: own.id, ...audience, exp: Math.floor(claimMs / 1000) }, own.privateKey);
  const expiresMs = Math.min(claimMs, peerNotAfterMs ?? Infinity);
  return { token, expires: instantOfMs(expiresMs), expiresMs };
}
