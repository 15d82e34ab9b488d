/** token.json: tokens made from an SVID, their metadata, and the verdicts of the policies on good and bad tokens. */
import { X509Certificate, createPrivateKey } from "node:crypto";
import type { Clock } from "../../sdk/clock.ts";
import { systemClock } from "../../sdk/clock.ts";
import { isSignedBy, parseToken } from "../../sdk/jwt.ts";
import {
  authorizeServerPath,
  clientAllowed,
  monitorVerdict,
  nextTokenSigned,
  prevTokenSigned,
  spiffeIdOf,
  tokensChained,
  tokensExpired,
  tokensValid,
} from "../../sdk/policies.ts";
import type { RegistrationFacts } from "../../sdk/policies.ts";
import { instantMs, instantOfMs, parseInstant } from "../../sdk/rfc3339.ts";
import type { Instant } from "../../sdk/rfc3339.ts";
import type { X509Svid } from "../../sdk/spiffe/source.ts";
import { createTokenMinter, readTokenMetadata, writeTokenMetadata } from "../../sdk/token.ts";
import { describeVectors, outcomeOf, same, sameError, vectorKind } from "./support.ts";
import type { Difference, VectorError, VectorFile } from "./support.ts";

interface Identity {
  readonly spiffeId: string;
  readonly certificate: string;
  readonly key: string;
}

type Verdicts = Readonly<Record<string, "allow" | "deny" | "error">>;

const PATH_POLICIES = [tokensValid, tokensExpired, tokensChained, prevTokenSigned, nextTokenSigned];
const NS_PER_MS = 1_000_000n;

const generate = vectorKind<{
  own: string;
  peer?: string;
  maxLifetimeMs: number;
  between: readonly [string, string];
  token: string;
  header: unknown;
  claims: { readonly exp: number };
  expires: string;
  error?: string;
}>(async (vector, file) => {
  const own = svidOf(file, vector.own);
  const peer = vector.peer === undefined ? undefined : identityOf(file, vector.peer);
  const peerNotAfterMs = peer && new X509Certificate(peer.certificate).validToDate.getTime();
  const mintAt = (time: string) =>
    createTokenMinter({ clock: clockAt(ms(time)), maxLifetimeMs: vector.maxLifetimeMs }).mint(
      own,
      peer?.spiffeId,
      peerNotAfterMs,
    );
  const outcome = await outcomeOf(() => vector.between.map(mintAt));
  const [earliest, latest] = sameError(outcome, vector.error === undefined ? undefined : true) ?? [];
  if (earliest === undefined || latest === undefined) return;

  const between = (what: string, first: number, recorded: number, last: number) =>
    same(`${what} ${first} <= ${recorded} <= ${last}`, first <= recorded && recorded <= last, true);
  between("expires", earliest.expiresMs, ms(vector.expires), latest.expiresMs);
  for (const { token } of [earliest, latest]) {
    same("header", read(token, 0), vector.header);
    same("claims without exp", { ...claims(token), exp: 0 }, { ...vector.claims, exp: 0 });
    same("signed", isSignedBy(token, own.chain[0] ?? file404(vector.own)), true);
  }
  between("exp", claims(earliest.token).exp, vector.claims.exp, claims(latest.token).exp);
  same(
    "the recorded token is read",
    Object.fromEntries(parseToken(vector.token)?.claims ?? []),
    vector.claims,
  );
  same("the recorded token verifies", isSignedBy(vector.token, own.chain[0] ?? file404(vector.own)), true);
});

const metadata = vectorKind<{
  expires: { unixNano: string; offsetSeconds: number };
  metadata: Readonly<Record<string, string>>;
}>((vector) => {
  const nanos = BigInt(vector.expires.unixNano);
  const whole = nanos - (((nanos % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n);
  const expires: Instant = { seconds: whole / 1_000_000_000n, nanos: Number(nanos - whole) };
  const token = { token: "TOKEN", expires, expiresMs: Number(nanos / NS_PER_MS) };
  same("read", readTokenMetadata(record(vector.metadata))?.expires, expires);
  const written = writeTokenMetadata(token);
  // We write every instant in UTC; a recorded offset is another spelling of the same instant.
  if (vector.expires.offsetSeconds === 0) same("written", written, vector.metadata);
  same("read again", readTokenMetadata(record(written))?.expires, expires);
});

interface PathVector {
  readonly tokens: readonly string[] | null;
  readonly index: number;
  readonly peer: string;
  readonly verdicts: Verdicts;
  readonly serverElement?: "allow" | VectorError;
}

/** Tokens that Go reads or verifies and we do not. */
const readStrictly: Difference<PathVector> = {
  record: "D6",
  differs: ({ tokens, index, verdicts }) => {
    const isRead = verdicts["common/tokens_valid"] === "allow";
    const isOdd = (token: string) =>
      /[\r\n]/.test(token) || token.length > 4096 || isNested(token) || repeats(token);
    const isVerified = (policy: string, at: number) =>
      verdicts[policy] === "allow" && part(tokens?.[at] ?? "", 2).length !== 64;
    return (
      (isRead && (tokens ?? []).some(isOdd)) ||
      isVerified("server/prev_token_signed", index - 1) ||
      isVerified("client/next_token_signed", index + 1)
    );
  },
};

const path = vectorKind<PathVector>(
  async (vector, file) => {
    const facts = factsOf(vector, file, undefined);
    same("verdicts", verdictsOf(facts, PATH_POLICIES), vector.verdicts);
    if (vector.serverElement === undefined) return;
    const outcome = await outcomeOf(() =>
      authorizeServerPath(
        facts.tokens.slice(0, facts.index + 1),
        facts.index,
        facts.peerCertificate,
        facts.nowMs,
      ),
    );
    sameError(outcome, vector.serverElement === "allow" ? undefined : vector.serverElement);
  },
  [readStrictly],
);

const registry = vectorKind<
  PathVector & {
    readonly known: Readonly<Record<string, readonly string[] | null>>;
    readonly resource: string;
    readonly resourceId: string;
  }
>(
  (vector, file) => {
    const known = vector.known[vector.resource];
    const facts = factsOf(vector, file, known === null ? [] : known);
    same("resource id", spiffeIdOf(facts.tokens[0] ?? ""), vector.resourceId);
    same("verdicts", verdictsOf(facts, [...PATH_POLICIES, clientAllowed]), vector.verdicts);
  },
  [readStrictly],
);

const monitor = vectorKind<{
  caller: string;
  connections: Readonly<Record<string, readonly string[]>>;
  selector: readonly string[] | null;
  verdicts: Verdicts;
}>(({ caller, connections, selector, verdicts }) => {
  const verdict = monitorVerdict(connections[caller] ?? [], selector ?? []);
  same("verdicts", { "monitor/service_connection": verdict }, verdicts);
});

describeVectors("token.json", { generate, metadata, path, registry, monitor });

function isNested(token: string): boolean {
  return /"cty"\s*:\s*"JWT"/.test(partText(token, 0));
}

function repeats(token: string): boolean {
  return [0, 1].some((at) => {
    const names = [
      ...partText(token, at).matchAll(/"(alg|typ|cty|enc|kid|sub|aud|exp|iat|nbf|iss|jti)"\s*:/g),
    ];
    return new Set(names.map(([, name]) => name)).size < names.length;
  });
}

function part(token: string, at: number): Buffer {
  return Buffer.from(token.split(".")[at] ?? "", "base64url");
}

function partText(token: string, at: number): string {
  return part(token, at).toString();
}

function factsOf(
  vector: PathVector,
  file: VectorFile,
  owners: readonly string[] | undefined,
): RegistrationFacts {
  const peerCertificate =
    vector.peer === "" ? undefined : new X509Certificate(identityOf(file, vector.peer).certificate);
  return {
    tokens: vector.tokens ?? [],
    index: vector.index,
    peerCertificate,
    nowMs: ms(String(file["now"])),
    owners,
  };
}

function verdictsOf(
  facts: RegistrationFacts,
  policies: readonly { readonly name: string; readonly decide: (facts: RegistrationFacts) => string }[],
): Readonly<Record<string, string>> {
  return Object.fromEntries(policies.map(({ name, decide }) => [name, decide(facts)]));
}

function identityOf(file: VectorFile, name: string): Identity {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- format in test/vectors/README.md
  const identities = file["identities"] as Readonly<Record<string, Identity>>;
  return identities[name] ?? file404(name);
}

function svidOf(file: VectorFile, name: string): X509Svid {
  const { spiffeId, certificate, key } = identityOf(file, name);
  const leaf = new X509Certificate(certificate);
  return {
    id: spiffeId,
    chain: [leaf],
    chainPem: certificate,
    privateKey: createPrivateKey(key),
    privateKeyPem: key,
    notAfterMs: leaf.validToDate.getTime(),
  };
}

function file404(name: string): never {
  throw new Error(`token.json has no identity ${name}`);
}

function clockAt(nowMs: number): Clock {
  return { ...systemClock, now: () => nowMs };
}

function ms(text: string): number {
  return instantMs(parseInstant(text) ?? instantOfMs(Number.NaN));
}

function read(token: string, at: number): Record<string, unknown> {
  return JSON.parse(partText(token, at));
}

function claims(token: string): { readonly exp: number } & Readonly<Record<string, unknown>> {
  const all = read(token, 1);
  return { ...all, exp: Number(all["exp"]) };
}

function record(values: Readonly<Record<string, string>>) {
  return { get: (key: string) => (values[key] === undefined ? [] : [values[key]]) };
}
