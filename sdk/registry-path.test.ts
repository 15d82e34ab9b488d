import * as fc from "fast-check";
import { expect, test } from "vitest";
import {
  EMPTY_PATH,
  adoptAnswer,
  enterRegistration,
  leaveRegistration,
  readRegistrationPath,
  writeRegistrationPath,
} from "./registry-path.ts";
import type { RegistrationPath } from "./registry-path.ts";

const header = (...values: readonly string[]) => ({ get: (key: string) => (key === "path" ? values : []) });
const token = (sub: string) => `${encode("{}")}.${encode(JSON.stringify({ sub }))}.`;
const id = (name: string) => `spiffe://example.org/${name}`;
const nse = token(id("nse"));
const nsmgr = token(id("nsmgr"));
const registry = token(id("registry"));

function encode(text: string): string {
  return Buffer.from(text).toString("base64url");
}

test("what is written is read, whatever the tokens hold, and is ASCII", () => {
  const path = fc.record({
    index: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    tokens: fc.array(fc.string({ unit: "binary" })),
  });
  fc.assert(
    fc.property(path, (value) => {
      const text = writeRegistrationPath(value);
      expect(text).toMatch(/^[\x20-\x7e]*$/);
      expect(text).not.toMatch(/[<>&]/);
      expect(readRegistrationPath(header(text))).toEqual(value);
    }),
  );
});

test("an empty path is written as Go writes it", () => {
  expect(writeRegistrationPath(EMPTY_PATH)).toBe('{"Index":0,"PathSegments":null}');
});

test.each([
  ["null", { index: 0, tokens: [] }],
  ["{}", { index: 0, tokens: [] }],
  ['{"Index":null,"PathSegments":null}', { index: 0, tokens: [] }],
  [
    ' {"iNDEX" : 1, "PATHsegments" : [ {"TOKEN":"A"} , {} , {"token":null} ], "more":[1.5] } ',
    { index: 1, tokens: ["A", "", ""] },
  ],
  ['{"Index":4294967295}', { index: 4294967295, tokens: [] }],
])("%s is read", (text, path) => {
  expect(readRegistrationPath(header(text))).toEqual(path);
});

test.each([
  "",
  "{",
  '"x"',
  "[]",
  "1",
  '{"Index":-1}',
  '{"Index":-0}',
  '{"Index":0.5}',
  '{"Index":1e0}',
  '{"Index":"0"}',
  '{"Index":4294967296}',
  '{"Index":1e400}',
  '{"Index":[]}',
  '{"PathSegments":{}}',
  '{"PathSegments":[null]}',
  '{"PathSegments":["A"]}',
  '{"PathSegments":[{"token":1}]}',
  '{"PathSegments":[{"token":"A","Token":"B"}]}',
  '{"Index":0,"index":1}',
  '{"Index":0,"Index":0}',
  `{"PathSegments":${"[".repeat(100_000)}`,
])("%s is no path", (text) => {
  expect(readRegistrationPath(header(text))).toBeUndefined();
});

test("the last value of the header counts", () => {
  expect(readRegistrationPath(header('{"Index":1}', '{"Index":2}'))?.index).toBe(2);
  expect(readRegistrationPath(header('{"Index":1}', "{"))).toBeUndefined();
  expect(readRegistrationPath(header())).toBeUndefined();
});

test("from an endpoint through a manager to the registry and back", () => {
  const atManager = enterRegistration({ path: EMPTY_PATH, pathIds: [], callerToken: nse, ownToken: nsmgr });
  expect(atManager).toEqual({
    path: { index: 1, tokens: [nse, nsmgr] },
    pathIds: [id("nse"), id("nsmgr")],
    callerIndex: 0,
  });
  const atRegistry = enterRegistration({ ...atManager, callerToken: nsmgr, ownToken: registry });
  expect(atRegistry.path).toEqual({ index: 2, tokens: [nse, nsmgr, registry] });
  expect(atRegistry.pathIds).toEqual([id("nse"), id("nsmgr"), id("registry")]);

  const toManager = leaveRegistration(atRegistry, atRegistry.path);
  expect(toManager).toEqual({ index: 1, tokens: [nse, nsmgr, registry] });
  const adopted = adoptAnswer(atManager.path, header(writeRegistrationPath(toManager ?? EMPTY_PATH)));
  expect(leaveRegistration(atManager, adopted)).toEqual({ index: 0, tokens: [nse, nsmgr, registry] });
});

test("a caller without a readable path gets its ids recorded and no header", () => {
  const hop = enterRegistration({ path: undefined, pathIds: [], callerToken: nse, ownToken: nsmgr });
  expect(hop).toEqual({ path: EMPTY_PATH, pathIds: [id("nse"), id("nsmgr")], callerIndex: undefined });
  expect(leaveRegistration(hop, { index: 1, tokens: ["x"] })).toBeUndefined();
});

test("an unusable caller is nobody, an unusable own token is our fault", () => {
  const hop = enterRegistration({ path: EMPTY_PATH, pathIds: [], callerToken: "rubbish", ownToken: nsmgr });
  expect([hop.path.tokens, hop.pathIds]).toEqual([
    ["rubbish", nsmgr],
    ["", id("nsmgr")],
  ]);
  expect(() => enterRegistration({ path: EMPTY_PATH, pathIds: [], callerToken: nse, ownToken: "" })).toThrow(
    expect.objectContaining({ code: "INTERNAL", reason: "own-token" }),
  );
});

test.each<RegistrationPath>([
  { index: 1, tokens: ["A"] },
  { index: 7, tokens: ["A", "B"] },
  { index: 2 ** 32 - 1, tokens: ["A"] },
])("index beyond the path is refused: %j", (path) => {
  expect(() => enterRegistration({ path, pathIds: [], callerToken: nse, ownToken: nsmgr })).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT", reason: "path-index" }),
  );
});

test("a client keeps its path when the answer has none", () => {
  const path = { index: 1, tokens: ["A", "B"] };
  expect(adoptAnswer(path, header())).toBe(path);
  expect(adoptAnswer(path, header("{"))).toBe(path);
  expect(adoptAnswer(path, header("null"))).toEqual(EMPTY_PATH);
});
