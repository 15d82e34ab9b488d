import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import type { MatchSchema } from "../api/gen/registry_pb.js";
import { explain } from "./explain.ts";

const record = (name: string, labels: Record<string, string>, service = "s", expiresMs?: number) =>
  create(NetworkServiceEndpointSchema, {
    name,
    url: "tcp://192.0.2.1:5001",
    networkServiceNames: [service],
    networkServiceLabels: { [service]: { labels } },
    ...(expiresMs !== undefined && { expirationTime: timestampFromMs(expiresMs) }),
  });

const run = (
  matches: readonly MessageInitShape<typeof MatchSchema>[],
  endpoints: readonly ReturnType<typeof record>[],
  labels: Record<string, string> = {},
  current?: { endpoint: string; forwarder: string },
) =>
  explain({
    service: create(NetworkServiceSchema, { name: "s", matches: [...matches] }),
    endpoints,
    forwarders: [record("f", { p2p: "true" }, "forwarder"), record("g", { fast: "true" }, "forwarder")],
    forwarderService: "forwarder",
    labels,
    current,
    nowMs: 1000,
  });
const reasons = (endpoints: readonly { name: string; reason: string }[]) =>
  endpoints.map(({ name, reason }) => `${name} ${reason}`);

test("candidates come in the order in which they are asked, with their share of turns", () => {
  const { endpoints, match } = run(
    [
      {
        routes: [
          { destinationSelector: { app: "a" }, weight: 3 },
          { destinationSelector: { app: "b" }, weight: 1 },
        ],
      },
    ],
    [
      record("backup", { app: "a", "nsm.io/tier": "1" }),
      record("far", { app: "a", "nsm.io/locality": "prefer", nodeName: "n2" }),
      record("one", { app: "a", "nsm.io/locality": "prefer", nodeName: "n1" }),
      record("two", { app: "b", "nsm.io/locality": "prefer", nodeName: "n1" }),
    ],
    { nodeName: "n1" },
  );
  expect(match).toBe(0);
  expect(reasons(endpoints)).toEqual(["one turn", "two turn", "far farther", "backup lower-tier"]);
  expect(endpoints.map(({ share }) => share)).toEqual([0.75, 0.25, 0, 0]);
  expect(endpoints[0]?.why).toContain("75 %");
  expect(endpoints[2]?.why).toMatch(/cluster.*one.*node/);
});

test("endpoints of other domains: where they are, and whether their domain answers", () => {
  const { endpoints } = run(
    [],
    [
      record("a@west", { "nsm.io/domain": "west", "nsm.io/away": "true" }),
      record("b@south", { "nsm.io/domain": "south", "nsm.io/locality": "prefer" }),
      record("here", { "nsm.io/locality": "prefer" }),
    ],
  );
  expect(endpoints.map(({ name, reason, why }) => [name, reason, why])).toEqual([
    ["here", "turn", "asked first"],
    [
      "b@south",
      "farther",
      "in the domain south: asked when here, in the same cluster, and its like do not serve",
    ],
    ["a@west", "domain-away", "the domain west does not answer: asked after all others"],
  ]);
});

test("each endpoint that is no candidate has its reason", () => {
  const { endpoints, match, rule } = run(
    [
      { sourceSelector: { role: "db" }, routes: [{ destinationSelector: { app: "x" } }] },
      { routes: [{ destinationSelector: { app: "a", zone: "{{.zone}}" } }] },
    ],
    [
      record("fits", { app: "a", zone: "z1" }),
      record("wrong", { app: "b", zone: "z1" }),
      record("away", { app: "a", zone: "z2" }),
      record("other", { app: "x", more: "y" }),
      record("over", { app: "a", zone: "z1" }, "s", 999),
    ],
    { zone: "z1" },
  );
  expect(reasons(endpoints)).toEqual([
    "fits turn",
    "away selector-mismatch",
    "other other-match",
    "over expired",
    "wrong selector-mismatch",
  ]);
  expect(endpoints.map(({ why }) => why)).toEqual([
    "the only candidate",
    "match 2 wants zone=z1, not z2",
    "match 2 decides and wants app=a, not x; zone=z1, not none; match 1 would lead to it",
    "its registration has run out",
    "match 2 wants app=a, not b",
  ]);
  expect([match, rule]).toEqual([1, "match 2 of 2 (for any client)"]);
});

test("a template that is not understood is told of", () => {
  const matches = [{ routes: [{ destinationSelector: { zone: "{{.zone" } }] }];
  expect(run(matches, [record("a", { zone: "z1" })], { zone: "z1" }).endpoints[0]?.why).toBe(
    "match 1 wants zone={{.zone (as it stands: no template that is understood), not z1",
  );
});

test("a tier that cannot be read is told of", () => {
  const { endpoints } = run([], [record("a", {}), record("b", { "nsm.io/tier": "x" })]);
  expect(endpoints[1]?.why).toBe(
    "nsm.io/tier is no number from 0 to 99: asked when a of tier 0 and its like do not serve",
  );
});

test("the match that decides is told as it stands in the manifest", () => {
  const matches = [{ sourceSelector: { app: "a", role: "db" }, routes: [{}] }];
  expect(run(matches, [], { app: "a", role: "db" }).rule).toBe(
    "match 1 of 1 (source_selector app=a, role=db)",
  );
  expect(run(matches, [], { app: "b" }).rule).toBeUndefined();
});

test("who serves is the chosen one, also when it would not be chosen any more", () => {
  const current = { endpoint: "old", forwarder: "f" };
  const { endpoints, forwarders } = run(
    [{ routes: [{ destinationSelector: { app: "a" } }], metadata: { labels: { fast: "true" } } }],
    [record("new", { app: "a" }), record("old", { app: "b" })],
    {},
    current,
  );
  expect(reasons(endpoints)).toEqual(["new turn", "old chosen"]);
  expect(endpoints[1]).toMatchObject({
    isChosen: true,
    isCandidate: false,
    why: "serves the wire; for a new one: match 1 wants app=a, not b",
  });
  expect(forwarders).toMatchObject([
    { name: "f", reason: "chosen", isCandidate: false, why: "the match asks for fast=true" },
    { name: "g", reason: "fits", isCandidate: true },
  ]);
});

test("without a match for the client nobody is a candidate, without matches everybody is", () => {
  const all = [record("a", {}), record("b", {})];
  const none = run([{ sourceSelector: { role: "db" }, routes: [{}] }], all);
  expect(none.match).toBeUndefined();
  expect(reasons(none.endpoints)).toEqual(["a no-match", "b no-match"]);
  expect(reasons(run([], all).endpoints)).toEqual(["a turn", "b turn"]);
  expect(reasons(run([], all).forwarders)).toEqual(["f fits", "g fits"]);
  expect(reasons(run([{ routes: [{}] }], all).forwarders)).toEqual(["f fits", "g metadata-mismatch"]);
});
