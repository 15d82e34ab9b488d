import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { State } from "../api/gen/connection_pb.js";
import {
  MatchSchema,
  MetadataSchema,
  NetworkServiceEndpointSchema,
  NetworkServiceSchema,
} from "../api/gen/registry_pb.js";
import type { Match } from "../api/gen/registry_pb.js";
import type { CallContext } from "../sdk/chain.ts";
import type { WithNextHop } from "../sdk/elements/target.ts";
import { NsmError } from "../sdk/errors.ts";
import { silentLogger } from "../sdk/log.ts";
import { callBy, createRecorder, requestOn } from "../test/support/chain.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { makePeer } from "../test/support/peer.ts";
import { createLocalEndpoints } from "./local-endpoints.ts";
import { selectForwarder } from "./select-forwarder.ts";

const CLIENT = callBy(await makePeer("/nsc/client"));
const PUBLIC = "tcp://192.0.2.1:5001";

/** A match that asks for forwarders with these labels; undefined: it says nothing of forwarders. */
const asking = (
  labels?: Record<string, string>,
  more: Pick<Partial<Match>, "sourceSelector" | "fallthrough"> = {},
): Match =>
  create(MatchSchema, {
    routes: [{}],
    ...(labels !== undefined && { metadata: create(MetadataSchema, { labels }) }),
    ...more,
  });

function build(...matches: readonly Match[]) {
  const local = createLocalEndpoints(createFakeClock());
  const register = (name: string, labels: Record<string, string>) =>
    local.set({
      entry: create(NetworkServiceEndpointSchema, {
        name,
        url: PUBLIC,
        networkServiceNames: ["forwarder"],
        networkServiceLabels: { forwarder: { labels } },
      }),
      url: `unix:///${name}`,
      path: { index: 0, tokens: [] },
      isAlive: () => true,
      dispose: () => undefined,
    });
  const service = { matches };
  const recorder = createRecorder<CallContext & WithNextHop>();
  const hops: string[] = [];
  const failing = new Set<string>();
  recorder.answer = ({ connection }, ctx) => {
    const name = ctx.nextHop.url.slice("unix:///".length);
    hops.push(name);
    return failing.has(name)
      ? Promise.reject(new NsmError("UNAVAILABLE", "unreachable", `${name} is away`))
      : Promise.resolve(connection);
  };
  const givenUp = new Set<string>();
  const chain = selectForwarder({
    lostForwarders: {
      serves: () => undefined,
      drop: () => undefined,
      isGivenUp: (name) => givenUp.has(name),
    },
    view: {
      service: (name) =>
        Promise.resolve(create(NetworkServiceSchema, { name, matches: [...service.matches] })),
    },
    local,
    forwarderService: "forwarder",
    publicUrl: PUBLIC,
    log: silentLogger,
  })(recorder);
  const ask = (id: string, labels: Record<string, string> = {}, state = State.UP) => {
    const request = requestOn(["client", "manager"], [`${id}-0`, id]);
    if (request.connection !== undefined) Object.assign(request.connection, { labels, state });
    return chain.request(request, CLIENT);
  };
  return { register, ask, hops, failing, local, service, givenUp };
}

describe("Point2MultiPoint: forwarders side by side", () => {
  const both = (...matches: Match[]) => {
    const bed = build(...matches);
    bed.register("one", { p2p: "true" });
    bed.register("many", { p2mp: "true" });
    return bed;
  };

  test.for([
    ["a match that says nothing of forwarders takes one for two ends", [asking()], "one"],
    ["metadata without labels says nothing", [asking({})], "one"],
    ["labels are taken by their word", [asking({ p2mp: "true" })], "many"],
    ["labels of the client are put in", [asking({ p2mp: "{{.many}}" })], "many"],
    [
      "the first match that fits the client decides",
      [asking({ p2mp: "true" }, { sourceSelector: { app: "x" } }), asking()],
      "one",
    ],
    [
      "a match that finds none falls through",
      [asking({ p2mp: "false" }, { fallthrough: true }), asking({ p2mp: "true" })],
      "many",
    ],
    ["a service without matches takes the first that there is", [], "one"],
  ] as const)("%s", async ([, matches, expected]) => {
    const { ask, hops } = both(...matches);
    await ask("1", { many: "true" });
    expect(hops).toEqual([expected]);
  });

  test("nobody is taken who does not fit", async () => {
    const { ask, hops } = both(asking({ fast: "true" }));
    await expect(ask("1")).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "no-forwarder" });
    expect(hops).toEqual([]);
  });

  test("a wire whose service asks for another forwarder gets it with a new choice", async () => {
    const { ask, hops, service } = both(asking());
    await ask("1");
    service.matches = [asking({ p2mp: "true" })];
    await ask("1");
    await ask("1", {}, State.RESELECT_REQUESTED);
    expect(hops).toEqual(["one", "one", "many"]);
  });
});

test("Should_KeepSelectedForwarder: more forwarders that appear change nothing", async () => {
  const { ask, hops, register } = build(asking());
  register("first", { p2p: "true" });
  await ask("1");
  for (let i = 0; i < 5; i++) {
    register(`later-${i}`, { p2p: "true" });
    await ask("1");
  }
  expect(new Set(hops)).toEqual(new Set(["first"]));
});

test("ChangeForwarderOnDeath: a new choice takes another forwarder when the one of before fails", async () => {
  const { ask, hops, register, failing } = build(asking());
  register("a", { p2p: "true" });
  register("b", { p2p: "true" });
  await ask("1");
  failing.add("a");
  await expect(ask("1")).rejects.toMatchObject({ code: "UNAVAILABLE" });
  await ask("1", {}, State.RESELECT_REQUESTED);
  await ask("1");
  expect(hops).toEqual(["a", "a", "a", "b", "b"]);
});

test("a forwarder that is missing is waited for, one that is given up is left by a refresh", async () => {
  const { ask, hops, register, local, givenUp } = build(asking());
  register("a", { p2p: "true" });
  register("b", { p2p: "true" });
  await ask("1");
  local.delete("a");
  await expect(ask("1")).rejects.toMatchObject({ reason: "forwarder-gone" });
  givenUp.add("a");
  await ask("1");
  expect(hops).toEqual(["a", "b"]);
});
