import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  LOCALITY_LABEL,
  TIER_LABEL,
  UNREADABLE_TIER,
  comparePreferences,
  inGroups,
  preferenceOf,
  tries,
} from "./prefer.ts";
import type { Distance } from "./prefer.ts";
import { createTurns } from "./turns.ts";

const near = { [LOCALITY_LABEL]: "prefer" };

describe("the tier of an endpoint", () => {
  test.for([
    [undefined, 0],
    ["0", 0],
    ["1", 1],
    ["99", 99],
    ["", UNREADABLE_TIER],
    ["-1", UNREADABLE_TIER],
    ["100", UNREADABLE_TIER],
    ["1.5", UNREADABLE_TIER],
    [" 1", UNREADABLE_TIER],
    ["backup", UNREADABLE_TIER],
  ] as const)("label %j is tier %j", ([label, tier]) => {
    expect(preferenceOf({}, label === undefined ? {} : { [TIER_LABEL]: label }).tier).toBe(tier);
  });

  test("is no affair of the client's", () => {
    expect(preferenceOf({ [TIER_LABEL]: "7" }, {}).tier).toBe(0);
  });
});

describe("the distance of an endpoint", () => {
  const client = { nodeName: "n1", zoneName: "z1", clusterName: "c1" };
  test.for<[object, Distance]>([
    [{ nodeName: "n1", zoneName: "z1", clusterName: "c1" }, "node"],
    [{ nodeName: "n2", zoneName: "z1", clusterName: "c1" }, "zone"],
    [{ nodeName: "n2", zoneName: "z2", clusterName: "c1" }, "cluster"],
    [{ nodeName: "n1", zoneName: "z1", clusterName: "c2" }, "any"],
    [{ nodeName: "n1", zoneName: "z1" }, "any"],
    [{ clusterName: "c1" }, "cluster"],
  ])("%j is of distance %s", ([endpoint, distance]) => {
    expect(preferenceOf({ ...client, ...near }, { ...endpoint }).distance).toBe(distance);
    expect(preferenceOf(client, { ...endpoint, ...near }).distance).toBe(distance);
    expect(preferenceOf(client, { ...endpoint }).distance).toBe("any");
  });

  test("is the cluster's where nobody says more", () => {
    expect(preferenceOf(near, {}).distance).toBe("cluster");
  });

  test("is not the node's because neither says where it is", () => {
    expect(preferenceOf({ ...near, nodeName: "", zoneName: "" }, { nodeName: "" }).distance).toBe("cluster");
  });
});

test.for<[object, object, Distance]>([
  [{ nodeName: "n1" }, { nodeName: "n1", "nsm.io/domain": "west" }, "any"],
  [{ nodeName: "n1", clusterName: "c1" }, { nodeName: "n1", "nsm.io/domain": "west" }, "any"],
  [{}, { clusterName: "c2", "nsm.io/domain": "west" }, "any"],
  [{ clusterName: "c1" }, { clusterName: "c1", "nsm.io/domain": "floating" }, "cluster"],
  [{ nodeName: "n1" }, { nodeName: "n1", "nsm.io/domain": "" }, "node"],
])("for client %j an endpoint with %j is of distance %s", ([client, endpoint, distance]) => {
  expect(preferenceOf({ ...client, ...near }, { ...endpoint }).distance).toBe(distance);
});

test("an endpoint whose domain is away comes after one of any tier", () => {
  const away = preferenceOf({}, { "nsm.io/away": "true", "nsm.io/domain": "west" });
  const last = preferenceOf({}, { [TIER_LABEL]: "x" });
  expect(comparePreferences(last, away)).toBeLessThan(0);
  expect(preferenceOf({}, { "nsm.io/away": "false" }).isAway).toBe(false);
});

const labels = fc
  .record({
    [TIER_LABEL]: fc.option(fc.constantFrom("0", "1", "2", "x"), { nil: undefined }),
    [LOCALITY_LABEL]: fc.option(fc.constantFrom("prefer", "ignore"), { nil: undefined }),
    "nsm.io/domain": fc.option(fc.constant("west"), { nil: undefined }),
    "nsm.io/away": fc.option(fc.constant("true"), { nil: undefined }),
    nodeName: fc.constantFrom("n1", "n2"),
    zoneName: fc.constantFrom("z1", "z2", ""),
    clusterName: fc.option(fc.constantFrom("c1", "c2"), { nil: undefined }),
  })
  .map((all) =>
    Object.fromEntries(
      Object.entries(all).flatMap(([key, value]): [string, string][] =>
        value === undefined ? [] : [[key, value]],
      ),
    ),
  );
const weight = fc.integer({ min: 1, max: 4 });
const candidates = fc
  .tuple(labels, fc.array(fc.tuple(labels, weight), { minLength: 1, maxLength: 6 }))
  .map(([client, all]) =>
    all.map(([endpoint, share], i) => ({
      endpoint: { name: String(i) },
      weight: share,
      preference: preferenceOf(client, endpoint),
    })),
  );

describe("whom to try", () => {
  test("each candidate once, nobody before one that is preferred to it, whatever the turn", () => {
    fc.assert(
      fc.property(candidates, fc.nat(20), (all, before) => {
        const turns = createTurns();
        for (let turn = 0; turn < before; turn++) void tries(turns, "service", all).next();
        const order = [...tries(turns, "service", all)];
        expect(new Set(order)).toEqual(new Set(all));
        expect(order).toHaveLength(all.length);
        for (const [i, one] of order.entries())
          for (const later of order.slice(i + 1))
            expect(comparePreferences(one.preference, later.preference)).toBeLessThanOrEqual(0);
      }),
    );
  });

  test("among the best each is first as often as its weight says, and nobody else ever", () => {
    fc.assert(
      fc.property(candidates, (all) => {
        const best = inGroups(all)[0] ?? [];
        const turns = createTurns();
        const cycle = best.reduce((sum, one) => sum + one.weight, 0);
        const firsts = new Map(best.map(({ endpoint }) => [endpoint.name, 0]));
        for (let turn = 0; turn < cycle; turn++) {
          const [first] = tries(turns, "service", all);
          const name = first?.endpoint.name ?? "";
          firsts.set(name, (firsts.get(name) ?? NaN) + 1);
        }
        expect(firsts).toEqual(new Map(best.map((one) => [one.endpoint.name, one.weight])));
      }),
    );
  });

  test("without these labels the turns alone decide", () => {
    fc.assert(
      fc.property(fc.array(weight, { minLength: 1, maxLength: 5 }), fc.nat(10), (weights, before) => {
        const all = weights.map((share, i) => ({
          endpoint: { name: String(i) },
          weight: share,
          preference: preferenceOf({ nodeName: "n1" }, { nodeName: `n${i}` }),
        }));
        const [ours, plain] = [createTurns(), createTurns()];
        for (let turn = 0; turn < before; turn++)
          expect([...tries(ours, "s", all)]).toEqual([...plain.tries("s", all)]);
      }),
    );
  });
});
