import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ConnectionSchema } from "../api/gen/connection_pb.js";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import {
  createTurns,
  discover,
  isSubset,
  matchEndpoints,
  orderByTurn,
  renderSelectorValue,
} from "./match.ts";
import type { Labels } from "./match.ts";
import { fastest } from "../test/support/timing.ts";

/** Names that mean something to JavaScript, beside ordinary ones. */
const labelName = fc.constantFrom(
  "__proto__",
  "constructor",
  "toString",
  "hasOwnProperty",
  "app",
  "zone",
  "x1",
);
const labelValue = fc.constantFrom("", "a", "b", "node-1", "<no value>", "{{", "}}");
const labels: fc.Arbitrary<Labels> = fc
  .array(fc.tuple(labelName, labelValue), { maxLength: 4 })
  .map((entries) => Object.fromEntries(entries));

type Known = ReadonlyMap<string, string>;

/** A piece of a template and what it stands for. */
interface Piece {
  readonly source: string;
  readonly meaning: (of: Known) => string;
}
const piece: fc.Arbitrary<Piece> = fc.oneof(
  fc.constantFrom("", "x-", "-", "}}", "{ {x", "é").map((text) => ({ source: text, meaning: () => text })),
  labelName.map((name) => ({ source: `{{.${name}}}`, meaning: (of: Known) => of.get(name) ?? "<no value>" })),
  labelName.map((name) => ({
    source: `{{ index . "${name}" }}`,
    meaning: (of: Known) => of.get(name) ?? "",
  })),
);
const template = fc.array(piece, { maxLength: 4 });

const sourceOf = (pieces: readonly Piece[]) => pieces.map(({ source }) => source).join("");
const meaningOf = (pieces: readonly Piece[], of: Labels) => {
  const known = new Map(Object.entries(of));
  return pieces.map(({ meaning }) => meaning(known)).join("");
};

describe("selectors", () => {
  it("put labels in, whatever they are called", () => {
    fc.assert(
      fc.property(template, labels, (pieces, of) => {
        expect(renderSelectorValue(sourceOf(pieces), of)).toBe(meaningOf(pieces, of));
      }),
      { numRuns: 20_000 },
    );
  });

  it("fit exactly the labels that hold each entry, as it stands or with labels put in", () => {
    fc.assert(
      fc.property(fc.dictionary(labelName, template, { maxKeys: 3 }), labels, labels, (asked, of, values) => {
        const selector = Object.fromEntries(
          Object.entries(asked).map(([k, pieces]) => [k, sourceOf(pieces)]),
        );
        const present = new Map(Object.entries(of));
        const expected =
          Object.keys(asked).length <= present.size &&
          Object.entries(asked).every(([key, pieces]) => {
            const actual = present.get(key) ?? "";
            return actual === sourceOf(pieces) || actual === meaningOf(pieces, values);
          });
        expect(isSubset(selector, of, values)).toBe(expected);
      }),
      { numRuns: 20_000 },
    );
  });

  it("stay as they are when they compute, loop, or grow beyond what a label may be", () => {
    const long = { a: "x".repeat(200) };
    for (const text of ['{{printf "%99999d" 1}}', "{{range .}}x{{end}}", "{{.a}}{{.a}}", "{{.a | html}}"])
      expect(renderSelectorValue(text, long)).toBe(text);
  });

  it("are read in linear time", () => {
    for (const text of ["{{ ".repeat(30_000), `{{-${" ".repeat(60_000)}`, `${" ".repeat(60_000)}{{- .a }}`])
      expect(fastest(() => renderSelectorValue(text, { a: "x" }))).toBeLessThan(1000);
  });
});

const candidate = (name: string, weight = 1) => ({ weight, endpoint: { name } });
const namesOf = (candidates: readonly { endpoint: { name: string } }[]) =>
  candidates.map(({ endpoint }) => endpoint.name).join("");

describe("turns", () => {
  it("go round when all weights are equal", () => {
    const equal = [candidate("a", 7), candidate("b", 7), candidate("c", 7)];
    expect([0, 1, 2, 3].map((turn) => namesOf(orderByTurn(equal, turn)))).toEqual([
      "abc",
      "bca",
      "cab",
      "abc",
    ]);
  });

  it("give each candidate its share of a cycle, and try each one once", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 5 }), (weights) => {
        const candidates = weights.map((weight, i) => candidate(String(i), weight));
        const cycle = weights.reduce((sum, weight) => sum + weight, 0);
        const firsts = weights.map(() => 0);
        for (let turn = 0; turn < cycle; turn++) {
          const order = orderByTurn(candidates, turn);
          expect(new Set(order)).toEqual(new Set(candidates));
          const first = Number(order[0]?.endpoint.name);
          firsts[first] = (firsts[first] ?? 0) + 1;
        }
        expect(firsts).toEqual(weights);
      }),
    );
  });

  it("mix a heavy candidate with a light one", () => {
    const order = [0, 1, 2, 3, 4, 5, 6, 7].map(
      (turn) => orderByTurn([candidate("a", 3), candidate("b", 1)], turn)[0]?.endpoint.name,
    );
    expect(order.join("")).toMatch(/^(?!.*bb)a+ba+ba*$/);
  });

  it("bear the largest weights there are", () => {
    const heavy = [candidate("a", 0xffff_ffff), candidate("b", 0xffff_fffe)];
    expect(namesOf(orderByTurn(heavy, Number.MAX_SAFE_INTEGER))).toMatch(/^ab$|^ba$/);
    expect(orderByTurn([], 3)).toEqual([]);
  });

  it("try an endpoint once to which two routes lead", () => {
    expect(namesOf(orderByTurn([candidate("a"), candidate("b"), candidate("a")], 2))).toBe("ab");
  });

  it("count every try", () => {
    const turns = createTurns();
    const all = [candidate("a"), candidate("b"), candidate("c")];
    const [first, second] = turns.tries("svc", all);
    expect([first, second]).toEqual([all[0], all[1]]);
    expect(namesOf([...turns.tries("svc", all)])).toBe("cab");
    expect(namesOf([...turns.tries("other", all)])).toBe("abc");
  });
});

describe("discovery", () => {
  const service = create(NetworkServiceSchema, {
    name: "svc",
    payload: "IP",
    matches: [
      {
        sourceSelector: { app: "db" },
        routes: [{ destinationSelector: { app: "nosuch" } }],
        fallthrough: true,
      },
      { routes: [{ destinationSelector: { v: "2" }, weight: 3 }, { destinationSelector: { v: "1" } }] },
    ],
  });
  const endpoint = (name: string, v: string, expiresAtMs?: number) =>
    create(NetworkServiceEndpointSchema, {
      name,
      networkServiceNames: ["svc"],
      networkServiceLabels: { svc: { labels: { v } } },
      ...(expiresAtMs === undefined ? {} : { expirationTime: timestampFromMs(expiresAtMs) }),
    });
  const find = (connection: Parameters<typeof create<typeof ConnectionSchema>>[1], nowMs = 0) =>
    discover({
      connection: create(ConnectionSchema, connection),
      services: [service],
      endpoints: [endpoint("one", "1"), endpoint("two", "2", 1000)],
      nowMs,
    });

  it("tells which rule led to an endpoint, and its weight", () => {
    const found = find({ networkService: "svc", labels: { app: "db" } });
    expect(found).toMatchObject({
      kind: "matched",
      payload: "IP",
      candidates: [
        { endpoint: { name: "two" }, match: 1, route: 0, weight: 3 },
        { endpoint: { name: "one" }, match: 1, route: 1, weight: 1 },
      ],
    });
  });

  it("falls through a match whose endpoints are of domains that do not answer, and has them last", () => {
    const away = create(NetworkServiceEndpointSchema, {
      name: "away",
      networkServiceNames: ["svc"],
      networkServiceLabels: { svc: { labels: { app: "nosuch", "nsm.io/away": "true" } } },
    });
    const rulesOf = (...endpoints: Parameters<typeof matchEndpoints>[2]) =>
      matchEndpoints(service, { app: "db" }, endpoints).map((found) => [found.endpoint.name, found.match]);
    expect(rulesOf(endpoint("one", "1"), away)).toEqual([
      ["one", 1],
      ["away", 0],
    ]);
    expect(rulesOf(away)).toEqual([["away", 0]]);
  });

  it("leaves out an endpoint at the moment it expires", () => {
    const names = (nowMs: number) => {
      const found = find({ networkService: "svc" }, nowMs);
      return found.kind === "matched" ? namesOf(found.candidates) : "";
    };
    expect([names(999), names(1000)]).toEqual(["twoone", "one"]);
  });

  it.each([
    [{ networkService: "nosuch" }, "service-not-found", "nosuch"],
    [{ networkService: "svc", payload: "ETHERNET" }, "service-not-found", "ETHERNET"],
    [{ networkServiceEndpointName: "gone" }, "endpoint-not-found", "gone"],
  ])("names what is missing: %j", (connection, reason, text) => {
    expect(() => find(connection)).toThrowError(
      expect.objectContaining({ code: "NOT_FOUND", reason, message: expect.stringContaining(text) }),
    );
  });

  it("looks at no inherited property when a service is called constructor", () => {
    const odd = create(NetworkServiceSchema, {
      name: "constructor",
      matches: [{ routes: [{ destinationSelector: { name: "Object" } }] }],
    });
    const record = create(NetworkServiceEndpointSchema, { name: "e", networkServiceNames: ["constructor"] });
    const connection = create(ConnectionSchema, { networkService: "constructor" });
    expect(() => discover({ connection, services: [odd], endpoints: [record], nowMs: 0 })).toThrowError(
      expect.objectContaining({ reason: "no-candidates" }),
    );
  });
});
