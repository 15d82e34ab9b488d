import { describe, expect, test } from "vitest";
import { NsmError } from "../errors.ts";
import {
  isSpiffeId,
  matchesAny,
  matchesPattern,
  parseIdPattern,
  parseSpiffeId,
  parseTrustDomain,
  parseTrustDomainId,
  parseWorkloadId,
} from "./id.ts";

/** The grammar once more, in another language; lengths apart. */
const ORACLE = /^spiffe:\/\/[a-z0-9._-]+(?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)*$/;
const expected = (text: string) =>
  ORACLE.test(text) && text.length <= 2048 && (text.split("/")[2] ?? "").length <= 255;

/** Numbers from 0 to n-1, the same in every run (mulberry32). */
function createRandom(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

const LOWER = "abcdefghijklmnopqrstuvwxyz0123456789.-_";
const ANY = `${LOWER}ABCDEFGHIJKLMNOPQRSTUVWXYZ`;

function word(random: (n: number) => number, alphabet: string, longest: number): string {
  let text = "";
  for (let left = 1 + random(longest); left > 0; left--) text += alphabet.charAt(random(alphabet.length));
  return /^\.{1,2}$/.test(text) ? "dots" : text;
}

function validId(random: (n: number) => number): string {
  const segments = Array.from({ length: random(6) }, () => `/${word(random, ANY, 20)}`);
  return `spiffe://${word(random, LOWER, 30)}${segments.join("")}`;
}

const insertAnywhere = (piece: string) => (id: string, at: number) => id.slice(0, at) + piece + id.slice(at);
/** Each makes an invalid id of a valid one, wherever `at` is. */
const MUTATIONS: Readonly<Record<string, (id: string, at: number) => string>> = {
  ...Object.fromEntries(
    [
      ..."%:?#@ \t\n\r\0\"'\\<>[]{}|^`~!$&()*+,;=é\u00ad\u202e\ufeff\ud800".split(""),
      "%2e",
      "%61",
      "%c0%ae",
      "\u{1f600}",
      "ａ",
      "К",
    ].map((piece) => [`${JSON.stringify(piece)} inserted`, insertAnywhere(piece)]),
  ),
  "upper-case scheme": (id) => id.replace("spiffe", "SPIFFE"),
  "mixed-case scheme": (id) => id.replace("spiffe", "Spiffe"),
  "other scheme": (id) => id.replace("spiffe", "https"),
  "no scheme": (id) => id.slice("spiffe://".length),
  "one slash": (id) => id.replace("//", "/"),
  "three slashes": (id) => id.replace("//", "///"),
  "upper-case trust domain": (id) => id.replace("spiffe://", "spiffe://A"),
  "trailing slash": (id) => `${id}/`,
  "empty segment": (id) => `${id}//x`,
  "dot segment": (id) => `${id}/./x`,
  "dot dot segment": (id) => `${id}/x/../y`,
  "dot at the end": (id) => `${id}/.`,
  "dot dot at the end": (id) => `${id}/..`,
  port: (id) => id.replace(/^(spiffe:\/\/[^/]*)/, "$1:8443"),
  userinfo: (id) => id.replace("spiffe://", "spiffe://user@"),
  "empty query": (id) => `${id}?`,
  "empty fragment": (id) => `${id}#`,
  "leading blank": (id) => ` ${id}`,
  "trailing newline": (id) => `${id}\n`,
  "2049 bytes": (id) => `${id}/${"x".repeat(2048 - id.length)}`,
  "trust domain of 256 bytes": (id) => id.replace(/^spiffe:\/\/[^/]*/, `spiffe://${"a".repeat(256)}`),
};

test("200,000 valid and spoiled ids get the verdict of the grammar", () => {
  const random = createRandom(1);
  const mutations = Object.entries(MUTATIONS);
  expect(mutations.length).toBeGreaterThan(40);
  const wrong: string[] = [];
  for (let i = 0; i < 100_000; i++) {
    const id = validId(random);
    if (!expected(id) || parseSpiffeId(id).text !== id) wrong.push(id);
    const { trustDomain, segments } = parseSpiffeId(id);
    if (`spiffe://${[trustDomain, ...segments].join("/")}` !== id) wrong.push(id);
    const [name, mutate] = mutations[i % mutations.length] ?? ["", String];
    const spoiled = mutate(id, random(id.length + 1));
    if (expected(spoiled) || isSpiffeId(spoiled)) wrong.push(`${name}: ${JSON.stringify(spoiled)}`);
  }
  expect(wrong.slice(0, 5)).toEqual([]);
});

test("any text gets the verdict of the grammar", () => {
  const random = createRandom(2);
  const alphabet = "spiffe:/.ab-_A%@é\0?#";
  const wrong: string[] = [];
  for (let i = 0; i < 50_000; i++) {
    const text = random(2) === 0 ? word(random, alphabet, 40) : `spiffe://${word(random, "a/.", 12)}`;
    if (isSpiffeId(text) !== expected(text)) wrong.push(text);
  }
  expect(wrong).toEqual([]);
});

describe("lengths", () => {
  const domain = (length: number) => `spiffe://${"a".repeat(length)}`;
  test.each([
    [domain(255), true],
    [domain(256), false],
    [`spiffe://a/${"x".repeat(2037)}`, true],
    [`spiffe://a/${"x".repeat(2038)}`, false],
    ["", false],
    ["spiffe://", false],
    ["spiffe:///x", false],
    ["spiffe://a", true],
    ["spiffe://a/...", true],
    ["spiffe://192.0.2.1/x", true],
    ["spiffe://[::1]/x", false],
  ])("%.40s", (text, isValid) => {
    expect(isSpiffeId(text)).toBe(isValid);
  });
});

test("errors name the id and the fault, without its control characters, and stay short", () => {
  const messageFor = (text: string) => {
    try {
      parseWorkloadId(text);
    } catch (error) {
      if (error instanceof NsmError) return `${error.code} ${error.reason} ${error.message}`;
      throw error;
    }
    return "valid";
  };
  expect(messageFor("spiffe://a.test")).toContain("a workload's id has a path");
  expect(messageFor("spiffe://a.test/x\n")).toBe(
    'INVALID_ARGUMENT bad-spiffe-id SPIFFE id "spiffe://a.test/x\\n": path segment "x\\n": only letters, digits, ".", "-" and "_", not "." or ".."',
  );
  expect(messageFor(`spiffe://${"é".repeat(2000)}`).length).toBeLessThan(400);
});

test("trust domains", () => {
  expect(parseTrustDomain("example.org")).toBe("example.org");
  expect(parseTrustDomainId("spiffe://example.org")).toBe("example.org");
  for (const name of ["", "A.test", "a/b", "a:1", "spiffe://a", "é", "a".repeat(256)])
    expect(() => parseTrustDomain(name)).toThrow(expect.objectContaining({ reason: "bad-trust-domain" }));
  expect(() => parseTrustDomainId("spiffe://example.org/x")).toThrow(/no path/);
});

describe("patterns", () => {
  const pattern = parseIdPattern("spiffe://a.test/ns/*/pod/*");
  test.each([
    ["spiffe://a.test/ns/x/pod/y", true],
    ["spiffe://a.test/ns/x/pod/y/z", false],
    ["spiffe://a.test/ns/x/pod", false],
    ["spiffe://a.test/ns/x/y/pod/z", false],
    ["spiffe://a.test/NS/x/pod/y", false],
    ["spiffe://b.test/ns/x/pod/y", false],
    ["spiffe://a.test.evil/ns/x/pod/y", false],
    ["spiffe://a.test", false],
  ])("compare segment by segment: %s", (id, isMatch) => {
    expect(matchesPattern(pattern, parseSpiffeId(id))).toBe(isMatch);
  });

  test("a star is never a part of a segment, many segments or a trust domain", () => {
    for (const text of [
      "spiffe://*/x",
      "spiffe://a.test/x*",
      "spiffe://a.test/**",
      "spiffe://a.test/*/",
      "*",
    ])
      expect(() => parseIdPattern(text)).toThrow(expect.objectContaining({ reason: "bad-spiffe-id" }));
  });

  test("a star in an id is no id", () => {
    expect(matchesAny([pattern], "spiffe://a.test/ns/*/pod/*")).toBe(false);
    expect(matchesAny([pattern], "spiffe://a.test/ns/x/pod/y")).toBe(true);
    expect(matchesAny([], "spiffe://a.test/ns/x/pod/y")).toBe(false);
  });
});
