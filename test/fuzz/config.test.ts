/** Configuration files and variables that somebody broke, by accident or on purpose: refused with a reason, and what was in force stays. */
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { expect, onTestFinished, test } from "vitest";
import { roles } from "../../cli/roles.ts";
import { parseRegistrations } from "../../identity/registrations.ts";
import { parseRules } from "../../nse/firewall/rules.ts";
import { parsePolicyRoutes } from "../../nse/policy-routes-file.ts";
import { parseExcludedPrefixes } from "../../nsmgr/excluded-prefixes-file.ts";
import { parseNetworkServices } from "../../registry/services-file.ts";
import { readConfig } from "../../sdk/config.ts";
import { NsmError } from "../../sdk/errors.ts";
import { silentLogger } from "../../sdk/log.ts";
import { openWatchedFile } from "../../sdk/watched-file.ts";
import { createFakeClock } from "../support/fake-clock.ts";

/** Each kind of file: how it is read, and a good one. */
const FILES: Readonly<Record<string, { parse: (text: string) => unknown; good: string }>> = {
  registrations: {
    parse: (text) => parseRegistrations(text, "a.test"),
    good: "registrations:\n  - id: spiffe://a.test/x\n    match: { uid: 0, gid: 7, netns: /run/netns/x }\n",
  },
  "excluded prefixes": {
    parse: parseExcludedPrefixes,
    good: "prefixes:\n  - 10.96.0.0/12\n  - 2001:db8::/32\n",
  },
  "policy routes": {
    parse: parsePolicyRoutes,
    good: "- { proto: 6, dstport: 80, routes: [{ prefix: 10.0.0.0/8, nexthop: 10.0.0.1 }] }\n",
  },
  "network services": {
    parse: parseNetworkServices,
    good: "kind: NetworkService\nmetadata: { name: a }\nspec:\n  matches:\n    - routes: [{ destination_selector: { a: b }, weight: 2 }]\n",
  },
  firewall: { parse: parseRules, good: "rules:\n  - { action: allow, protocol: tcp, ports: [8080] }\n" },
};

/** Texts that cost a careless reader minutes, gigabytes or its stack. */
const BOMBS: Readonly<Record<string, string>> = {
  "aliases that multiply": [
    "a0: &a0 [x, x, x, x, x, x, x, x, x, x]",
    ...Array.from({ length: 9 }, (_, i) => `a${i + 1}: &a${i + 1} [${Array(10).fill(`*a${i}`).join(", ")}]`),
  ].join("\n"),
  "merge keys by the thousand": `a: &a { x: 1 }\n${Array.from({ length: 3000 }, (_, i) => `m${i}: { <<: *a }`).join("\n")}`,
  "brackets by the thousand": "[".repeat(100_000),
  "closed brackets by the thousand": "[".repeat(20_000) + "]".repeat(20_000),
  "lists in lists": "- ".repeat(50_000),
  "keys in keys": "? ".repeat(50_000),
  "JSON in JSON": '{"a":'.repeat(30_000),
  "indentation without end": Array.from({ length: 700 }, (_, i) => `${" ".repeat(i)}a:`).join("\n"),
  "a key four thousand times": Array.from({ length: 4000 }, (_, i) => `a: ${i}`).join("\n"),
  "four thousand keys": Array.from({ length: 4000 }, (_, i) => `k${i}: ${i}`).join("\n"),
  "a text of ten megabytes": "x".repeat(10_000_000),
  "a tag that makes functions": "!!js/function 'x'",
  "an own prototype": '{ "__proto__": { "registrations": [] }, "constructor": 1 }',
  "bytes that are no text": "\u0000\uFFFD\u0001\u{10FFFF}",
  "an unfinished quote": `a: "${"\\".repeat(9999)}`,
};

for (const [kind, { parse, good }] of Object.entries(FILES)) {
  test(`${kind}: a good file is read`, () => {
    expect(() => parse(good)).not.toThrow();
  });

  test.for(Object.entries(BOMBS))(`${kind}: %s is refused with a reason`, ([, text]) => {
    expect(refusalOf(() => parse(text))).toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  test(`${kind}: whatever is changed in a good file, it is read or refused with a reason`, () => {
    fc.assert(
      fc.property(mutationsOf(good), (text) => {
        const refusal = refusalOf(() => parse(text));
        expect(refusal === undefined || isRefusal(refusal), String(refusal)).toBe(true);
      }),
      { numRuns: 400 },
    );
  });

  test(`${kind}: while the file is a bomb the last good one stays in force`, async () => {
    const folder = mkdtempSync(join(tmpdir(), "nsm-fuzz-"));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const path = join(folder, "file");
    writeFileSync(path, good);
    /** As editors and ConfigMaps do it: nobody sees half a file. */
    const replace = (text: string) => {
      writeFileSync(`${path}.new`, text);
      renameSync(`${path}.new`, path);
    };
    const clock = createFakeClock();
    let reads = 0;
    const counted = (text: string) => {
      reads++;
      return parse(text);
    };
    await using file = await openWatchedFile({ path, what: kind, parse: counted, log: silentLogger, clock });
    const before = file.current();
    for (const bomb of ["aliases that multiply", "lists in lists", "a text of ten megabytes"]) {
      const seen = reads;
      replace(BOMBS[bomb] ?? "");
      await expect
        .poll(() => clock.advance(5000).then(() => reads), { timeout: 10_000 })
        .toBeGreaterThan(seen);
      expect(file.current()).toBe(before);
    }
    replace(`${good}# more\n`);
    await expect
      .poll(() => clock.advance(5000).then(() => file.current()), { timeout: 5000 })
      .not.toBe(before);
  });
}

test.for(roles)(
  "$name: whatever its environment holds, it is read or refused with all faults",
  async ({ load }) => {
    const { table } = await load();
    const names = Object.values(table).map(({ env }) => env);
    const value = fc.oneof(
      fc.string({ maxLength: 60 }),
      fc.constantFrom(
        "",
        "0",
        "-1",
        "1e400",
        "9".repeat(400),
        "true",
        "[",
        "{}",
        "a:b,c:d",
        "unix:///x",
        "tcp://:1",
      ),
      fc.string({ unit: "binary", maxLength: 200 }),
    );
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom(...names), value, { maxKeys: 6 }), (env) => {
        const refusal = refusalOf(() => readConfig(table, env, () => undefined));
        expect(refusal === undefined || isRefusal(refusal), String(refusal)).toBe(true);
      }),
      { numRuns: 300 },
    );
  },
);

/** Texts that differ from a good one in a few places: pieces taken out, doubled, put elsewhere, or replaced by what hurts. */
function mutationsOf(good: string): fc.Arbitrary<string> {
  const piece = fc.oneof(
    fc.string({ maxLength: 8 }),
    fc.constantFrom(
      "[",
      "]",
      "{",
      "}",
      ": ",
      "- ",
      "? ",
      "&a ",
      "*a",
      "!!set ",
      "|",
      ">",
      "<<: ",
      '"',
      "'",
      "#",
      "\t",
      "\n",
      "---\n",
      "...",
      "%TAG",
      "~",
      "null",
      "1e999",
      "0x",
      "-0",
      "__proto__",
      "\u0000",
      "\u2028",
    ),
  );
  const edit = fc.record({
    at: fc.nat(good.length),
    cut: fc.nat(6),
    put: piece,
    times: fc.integer({ min: 1, max: 3 }),
  });
  return fc
    .array(edit, { minLength: 1, maxLength: 4 })
    .map((edits) =>
      edits.reduce(
        (text, { at, cut, put, times }) => text.slice(0, at) + put.repeat(times) + text.slice(at + cut),
        good,
      ),
    );
}

function isRefusal(error: unknown): error is NsmError {
  return error instanceof NsmError && ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"].includes(error.code);
}

function refusalOf(body: () => unknown): unknown {
  try {
    body();
    return undefined;
  } catch (error) {
    return error;
  }
}
