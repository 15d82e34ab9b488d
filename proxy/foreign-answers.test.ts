import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { NetworkServiceEndpointSchema, NetworkServiceLabelsSchema } from "../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { createLogger } from "../sdk/log.ts";
import type { Found } from "../sdk/registry/registry.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { createAnswerGuard, endpointRules } from "./foreign-answers.ts";

const endpoint = (name: string, service = "web") =>
  create(NetworkServiceEndpointSchema, { name, networkServiceNames: [service] });
const asked = create(NetworkServiceEndpointSchema, { networkServiceNames: ["web"] });

function build() {
  const clock = createFakeClock();
  const warnings: string[] = [];
  const log = createLogger("proxy", "warn", { write: (line) => void warnings.push(line) });
  const guard = createAnswerGuard({ clock, log });
  const read = async (
    answer: Iterable<Found<NetworkServiceEndpoint>>,
    { watch = false, domain = "west" } = {},
  ) => {
    const names: string[] = [];
    async function* open() {
      yield* answer;
    }
    for await (const { entry, deleted } of guard.passed(domain, endpointRules, { entry: asked, watch }, open))
      names.push(deleted ? `-${entry.name}` : entry.name);
    return names;
  };
  return { clock, warnings, read, guard };
}

const found = (...entries: readonly NetworkServiceEndpoint[]) =>
  entries.map((entry) => ({ entry, deleted: false }));

function* without(end: number, name: (i: number) => string) {
  for (let i = 0; i < end; i++) yield { entry: endpoint(name(i)), deleted: false };
}

test("names of other domains, what was not asked for, and what is too large are dropped with one warning", async () => {
  const { read, warnings } = build();
  const labelled = endpoint("labels");
  labelled.networkServiceLabels = { "web@east": create(NetworkServiceLabelsSchema) };
  const answer = found(
    endpoint("good"),
    endpoint("nse@east"),
    endpoint("nse", "web@east"),
    labelled,
    endpoint("other", "database"),
    endpoint(""),
    endpoint("x".repeat(10_000)),
    endpoint("also-good"),
  );
  expect(await read(answer)).toEqual(["good", "also-good"]);
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toContain("nse@east");
});

test("a domain may complain again a minute later, and each for itself", async () => {
  const { read, warnings, clock } = build();
  const bad = found(endpoint("nse@east"));
  await read(bad);
  await read(bad);
  await read(bad, { domain: "north" });
  expect(warnings).toHaveLength(2);
  await clock.advance(60_000);
  await read(bad);
  expect(warnings).toHaveLength(3);
});

test("of a million endpoints ten thousand are taken, and the rest is not read", async () => {
  const { read, warnings } = build();
  let last = 0;
  const names = await read(without(1_000_000, (i) => `nse-${(last = i)}`));
  expect(names).toHaveLength(10_000);
  expect(last).toBe(10_000);
  expect(warnings).toHaveLength(1);
});

test("a watch goes on after ten thousand, and takes others in when some have gone", async () => {
  const { read } = build();
  const gone = { entry: endpoint("nse-0"), deleted: true };
  const names = await read([...without(10_005, (i) => `nse-${i}`), gone, gone, ...found(endpoint("new"))], {
    watch: true,
  });
  expect(names.slice(-2)).toEqual(["-nse-0", "new"]);
  expect(names).toHaveLength(10_002);
});

test.for([true, false])("who does not end is not listened to for a while (watch: %s)", async (watch) => {
  const { read, clock } = build();
  const endless = () =>
    read(
      without(Infinity, () => "nse"),
      { watch },
    );
  await expect(endless()).rejects.toMatchObject({ reason: "domain-floods" });
  await expect(read(found(endpoint("nse")))).rejects.toMatchObject({ reason: "domain-floods" });
  expect(await read(found(endpoint("nse")), { domain: "north" })).toEqual(["nse"]);
  await clock.advance(10_000);
  expect(await read(found(endpoint("nse")))).toEqual(["nse"]);
});

test("what a domain has taken in has a name of that domain", () => {
  const { guard } = build();
  expect(guard.taken("west", endpointRules, endpoint("nse-1")).name).toBe("nse-1");
  expect(() => guard.taken("west", endpointRules, endpoint("nse@east"))).toThrow(
    expect.objectContaining({ reason: "foreign-record" }),
  );
});
