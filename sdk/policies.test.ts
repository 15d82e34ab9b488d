/** The policies against a second, naive reading of the same rules, on arbitrary claims. Signatures: token-matrix.test.ts. */
import { isDeepStrictEqual } from "node:util";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  authorizeClientPath,
  authorizeRegistration,
  authorizeRegistrationAnswer,
  authorizeServerPath,
  clientAllowed,
  monitorVerdict,
  spiffeIdOf,
  tokensChained,
  tokensExpired,
  tokensValid,
} from "./policies.ts";
import type { PathFacts } from "./policies.ts";

const NOW_MS = 1_800_000_000_000;
const A = "spiffe://example.org/a";
const B = "spiffe://example.org/b";

function token(claims: unknown): string {
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${encode({ alg: "ES256" })}.${encode(claims)}.`;
}

function facts(tokens: readonly string[], index = 0): PathFacts {
  return { tokens, index, peerCertificate: undefined, nowMs: NOW_MS };
}

interface Claims {
  readonly sub?: unknown;
  readonly aud?: unknown;
  readonly exp?: unknown;
}

function isAhead({ exp }: Claims): boolean {
  if (typeof exp === "number") return exp * 1000 > NOW_MS;
  return exp !== undefined && exp !== null && typeof exp !== "boolean";
}

function link(before: Claims, after: Claims): string {
  if (after.sub === undefined || typeof before.aud !== "object" || before.aud === null) return "deny";
  const fits = new Set(Object.values(before.aud).map((value) => isDeepStrictEqual(value, after.sub)));
  if (fits.size === 2) return "error";
  return fits.has(true) ? "allow" : "deny";
}

test("verdicts are those of the naive reading", () => {
  const id = fc.constantFrom<unknown>(A, B, "", null, 1, [A], { a: A });
  const claims: fc.Arbitrary<Claims> = fc.record(
    {
      sub: id,
      aud: fc.oneof(fc.array(id, { maxLength: 3 }), fc.dictionary(fc.constantFrom("a", "b"), id), id),
      exp: fc.oneof(
        fc.constantFrom<unknown>("1", null, true, [], {}, 1_800_000_000),
        fc.double({ noNaN: true }),
      ),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fc.array(claims, { maxLength: 4 }), (path) => {
      // JSON has no infinities: what is read is what counts.
      const read = path.map((value): Claims => JSON.parse(JSON.stringify(value)));
      const given = facts(path.map(token));
      const some = path.length > 0;
      const links = read.slice(1).map((value, i) => link(read[i] ?? {}, value));
      const chained = links.includes("error")
        ? "error"
        : links.every((v) => v === "allow")
          ? "allow"
          : "deny";
      expect(tokensValid.decide(given)).toBe(some ? "allow" : "deny");
      expect(tokensExpired.decide(given)).toBe(some && read.every(isAhead) ? "allow" : "deny");
      expect(tokensChained.decide(given)).toBe(some ? chained : "deny");
    }),
    { numRuns: 3000 },
  );
});

test("one unreadable token denies, and a chain of one is whole", () => {
  const good = token({ sub: A, aud: [B], exp: 1_900_000_000 });
  expect(tokensValid.decide(facts([good, ""]))).toBe("deny");
  expect(tokensExpired.decide(facts([good, ""]))).toBe("deny");
  expect(tokensChained.decide(facts([""]))).toBe("allow");
});

test("a contradiction is INTERNAL, a denial PERMISSION_DENIED, whoever asks", () => {
  const contradiction = [
    token({ sub: A, aud: [A, B], exp: 1_900_000_000 }),
    token({ sub: B, exp: 1_900_000_000 }),
  ];
  for (const authorize of [authorizeServerPath, authorizeClientPath]) {
    expect(() => authorize(contradiction, 1, undefined, NOW_MS)).toThrow(
      expect.objectContaining({ code: "INTERNAL" }),
    );
    expect(() => authorize([], 0, undefined, NOW_MS)).toThrow(
      expect.objectContaining({ code: "PERMISSION_DENIED" }),
    );
  }
  for (const authorize of [authorizeRegistration, authorizeRegistrationAnswer]) {
    expect(() => authorize({ ...facts(contradiction), owners: undefined })).toThrow(
      expect.objectContaining({ code: "INTERNAL" }),
    );
  }
});

test("hostile indexes deny", () => {
  const good = [token({ sub: A, aud: [B], exp: 1_900_000_000 }), token({ sub: B, exp: 1_900_000_000 })];
  for (const index of [-1, 0, 2, 3, 2 ** 32 - 1, Number.NaN]) {
    expect(() => authorizeServerPath(good, index, undefined, NOW_MS)).toThrow(/server\/prev_token_signed/);
    expect(() => authorizeClientPath(good, index, undefined, NOW_MS)).toThrow(/client\/next_token_signed/);
  }
});

test.each([
  ["a free name", undefined, A, "allow"],
  ["the owner", [A, B], A, "allow"],
  ["a later element", [B, A], A, "deny"],
  ["a name without owner", [], A, "deny"],
  ["somebody else", [B], A, "deny"],
  ["nobody, whose name nobody owns", [""], "no SPIFFE id", "allow"],
])("client_allowed: %s", (_, owners, sub, verdict) => {
  expect(clientAllowed.decide({ ...facts([token({ sub })]), owners })).toBe(verdict);
});

test("the SPIFFE id of a token, else empty", () => {
  expect(spiffeIdOf(token({ sub: A }))).toBe(A);
  for (const sub of ["", "a", "spiffe://example.org/a/../b", "SPIFFE://example.org/a", 1, null, [A]]) {
    expect(spiffeIdOf(token({ sub }))).toBe("");
  }
  expect(spiffeIdOf("rubbish")).toBe("");
});

test("monitors: one id of one's own is enough, none is not", () => {
  expect(monitorVerdict(["1", "2"], ["3", "2"])).toBe("allow");
  expect(monitorVerdict(["1"], ["2"])).toBe("deny");
  expect(monitorVerdict(["1"], [])).toBe("deny");
  expect(monitorVerdict([], [])).toBe("deny");
});
