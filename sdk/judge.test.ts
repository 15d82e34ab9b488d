import { create } from "@bufbuild/protobuf";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { ConnectionSchema } from "../api/gen/connection_pb.js";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import { NsmError } from "./errors.ts";
import { judge } from "./judge.ts";
import { matchForwarders } from "./match-forwarders.ts";
import { discover } from "./match.ts";
import type { Discovery } from "./match.ts";
import { tries } from "./prefer.ts";
import { createTurns } from "./turns.ts";

const app = fc.constantFrom("a", "b", "c");
const match = fc.record({
  sourceSelector: fc.oneof(
    fc.constant<Record<string, string>>({}),
    app.map((role) => ({ role })),
  ),
  routes: fc.array(
    app.map((value) => ({ destinationSelector: { app: value } })),
    { maxLength: 2 },
  ),
  fallthrough: fc.boolean(),
});
const service = fc
  .array(match, { maxLength: 3 })
  .map((matches) => create(NetworkServiceSchema, { name: "s", payload: "IP", matches }));
const endpoints = fc
  .array(fc.record({ value: app, tier: fc.constantFrom("0", "1", "2"), away: fc.boolean() }), {
    maxLength: 5,
  })
  .map((all) =>
    all.map(({ value, tier, away }, i) =>
      create(NetworkServiceEndpointSchema, {
        name: String(i),
        networkServiceNames: ["s"],
        networkServiceLabels: {
          s: { labels: { app: value, "nsm.io/tier": tier, "nsm.io/away": String(away) } },
        },
      }),
    ),
  );
const forwarders = [
  create(NetworkServiceEndpointSchema, {
    name: "f",
    networkServiceNames: ["forwarder"],
    networkServiceLabels: { forwarder: { labels: { p2p: "true" } } },
  }),
];

test("whom the forwarder tries first fits, and nothing that fits is outranked by whom it would try", () => {
  fc.assert(
    fc.property(service, endpoints, app, (record, all, role) => {
      const labels = { role };
      const input = { service: record, endpoints: all, forwarders, forwarderService: "forwarder" };
      const connection = create(ConnectionSchema, { networkService: "s", labels });
      const verdicts = new Map(
        all.map(({ name }) => [name, judge({ labels, endpoint: name, forwarder: "f" }, input)]),
      );
      const order = orderOf(() => discover({ connection, services: [record], endpoints: all, nowMs: 0 }));
      expect(verdicts.get(order[0] ?? "")).toEqual(order.length > 0 ? { kind: "fits" } : undefined);
      const away = new Set(
        all.flatMap(({ name, networkServiceLabels }) =>
          networkServiceLabels["s"]?.labels["nsm.io/away"] === "true" ? name : [],
        ),
      );
      const wrong = [...verdicts].filter(([name, verdict]) => {
        const place = order.indexOf(name);
        switch (verdict.kind) {
          case "fits":
            return place < 0 && !away.has(name); // what is away is not judged
          case "misfit":
            return place >= 0 || verdict.elsewhere !== order.length > 0;
          case "outranked":
            return place >= 0 && order.indexOf(verdict.by) > place;
          case "unknown":
            return true;
        }
      });
      expect(wrong).toEqual([]);
    }),
    { numRuns: 2000 },
  );
});

/** Whom a forwarder tries; nobody where nobody is found. */
function orderOf(find: () => Discovery): readonly string[] {
  try {
    const found = find();
    if (found.kind === "named") throw new Error("nobody was named");
    return [...tries(createTurns(), "s", found.candidates)].map(({ endpoint }) => endpoint.name);
  } catch (error) {
    if (error instanceof NsmError && error.reason === "no-candidates") return [];
    throw error;
  }
}

test("a wire of a forwarder that the match does not want is a misfit, one of a forwarder that is gone is not", () => {
  const record = create(NetworkServiceSchema, {
    name: "s",
    matches: [{ metadata: { labels: { fast: "true" } } }],
  });
  const endpoint = create(NetworkServiceEndpointSchema, { name: "e", networkServiceNames: ["s"] });
  const input = { service: record, endpoints: [endpoint], forwarders, forwarderService: "forwarder" };
  expect(matchForwarders(record, {}, forwarders, "forwarder")).toEqual([]);
  expect(judge({ labels: {}, endpoint: "e", forwarder: "f" }, input)).toEqual({
    kind: "misfit",
    why: "forwarder-mismatch",
    elsewhere: false,
  });
  expect(judge({ labels: {}, endpoint: "e", forwarder: "gone" }, input)).toEqual({ kind: "fits" });
});

test("where nobody can be preferred, the other endpoints are not looked at", () => {
  const record = create(NetworkServiceSchema, {
    name: "s",
    matches: [{ sourceSelector: { role: "z" } }, { routes: [{ destinationSelector: { app: "a" } }] }],
  });
  const labelled = (name: string) =>
    create(NetworkServiceEndpointSchema, {
      name,
      networkServiceNames: ["s"],
      networkServiceLabels: { s: { labels: { app: "a" } } },
    });
  const other = labelled("other");
  Object.defineProperty(other, "networkServiceLabels", {
    get() {
      throw new Error("looked at");
    },
  });
  const input = {
    service: record,
    endpoints: [other, labelled("e")],
    forwarders,
    forwarderService: "forwarder",
  };
  expect(judge({ labels: {}, endpoint: "e", forwarder: "f" }, input)).toEqual({ kind: "fits" });
});

test.for([
  [
    { "nsm.io/tier": "1" },
    { "nsm.io/domain": "west", "nsm.io/away": "true" },
    "fits",
    "nobody returns to a domain that is away",
  ],
  [
    { "nsm.io/tier": "1" },
    { "nsm.io/domain": "west" },
    "outranked",
    "a domain that is back takes its wires back",
  ],
  [
    { "nsm.io/tier": "1", "nsm.io/domain": "west", "nsm.io/away": "true" },
    {},
    "fits",
    "a wire to a domain that is away may work",
  ],
] as const)("%j beside %j: %s (%s)", ([own, other, kind]) => {
  const record = (name: string, labels: Record<string, string>) =>
    create(NetworkServiceEndpointSchema, {
      name,
      networkServiceNames: ["s"],
      networkServiceLabels: { s: { labels } },
    });
  const input = {
    service: create(NetworkServiceSchema, { name: "s" }),
    endpoints: [record("own", own), record("other", other)],
    forwarders,
    forwarderService: "forwarder",
  };
  expect(judge({ labels: {}, endpoint: "own", forwarder: "f" }, input).kind).toBe(kind);
});
