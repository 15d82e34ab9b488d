import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { expect, onTestFinished, test, vi } from "vitest";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import { createMemoryRegistries } from "../../registry/memory.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import { silentLogger } from "../log.ts";
import { EMPTY_PATH } from "../registry-path.ts";
import { findAll } from "../registry/registry.ts";
import type { Registries, RegistryContext } from "../registry/registry.ts";
import { createStore } from "../registry/store.ts";
import { matchesEndpoint } from "../match.ts";
import { keepImports } from "./imports.ts";

const CONTEXT: RegistryContext = {
  signal: new AbortController().signal,
  deadlineMs: undefined,
  peer: undefined,
  registration: { path: EMPTY_PATH },
};

/** A registry here, and one of all other domains that a test writes into as it likes, and that can be away. */
function build({ msPerLook = 0 } = {}) {
  const clock = createFakeClock();
  let [busyMs, pauses] = [0, 0];
  const registries = createMemoryRegistries(clock);
  const there = createStore<NetworkServiceEndpoint>({
    nameOf: ({ name }) => name,
    servicesOf: ({ networkServiceNames }) => networkServiceNames,
    matches: matchesEndpoint,
  });
  let away = new AbortController();
  let finds = 0;
  const watched = new Set<string>();
  const lists = { open: 0, most: 0 };
  const elsewhere: Pick<Registries, "endpoints"> = {
    endpoints: {
      register: () => Promise.reject(new Error("nobody registers there")),
      unregister: () => Promise.reject(new Error("nobody registers there")),
      async *find(query, { signal }) {
        finds++;
        if (query.watch) watched.add(query.entry.networkServiceNames.join());
        const { signal: gone } = away;
        if (gone.aborted) throw gone.reason;
        lists.open += query.watch ? 0 : 1;
        lists.most = Math.max(lists.most, lists.open);
        if (!query.watch) await new Promise(setImmediate);
        yield* there.find(query, AbortSignal.any([signal, gone]));
        lists.open -= query.watch ? 0 : 1;
        if (gone.aborted) throw gone.reason;
      },
    },
  };
  const warn = vi.fn<() => void>();
  const log = { ...silentLogger, warn };
  const busyClock: Clock = {
    now: () => clock.now(),
    monotonic: () => clock.monotonic() + (busyMs += msPerLook),
    timer(delayMs, run) {
      if (delayMs === 0) pauses++;
      return clock.timer(delayMs, run);
    },
  };
  const imports = keepImports({ registries, elsewhere, clock: busyClock, log });
  onTestFinished(async () => {
    await imports[Symbol.asyncDispose]();
    registries[Symbol.dispose]();
    expect(clock.armed).toBe(0);
  });
  const service = (name: string, importFrom: readonly string[]) =>
    registries.services.register(
      create(NetworkServiceSchema, { name, importFrom: [...importFrom] }),
      CONTEXT,
    );
  const found = async (query: MessageInitShape<typeof NetworkServiceEndpointSchema> = {}) =>
    await findAll(registries.endpoints, create(NetworkServiceEndpointSchema, query), CONTEXT.signal);
  return {
    clock,
    registries,
    there,
    warn,
    service,
    found,
    names: async (name: string) =>
      (await found({ networkServiceNames: [name] })).map((each) => each.name).toSorted(),
    setAway: (now: boolean, why: Error = new NsmError("UNAVAILABLE", "domain-silent", "away")) => {
      if (now) away.abort(why);
      else away = new AbortController();
    },
    finds: () => finds,
    pauses: () => pauses,
    watched,
    lists,
  };
}

const record = (name: string, services: readonly string[], labels: Record<string, string> = {}) =>
  create(NetworkServiceEndpointSchema, {
    name,
    networkServiceNames: [...services],
    networkServiceLabels: Object.fromEntries(services.map((each) => [each, { labels }])),
    url: "tcp://192.0.2.1:5004",
    expirationTime: timestampFromMs(Date.UTC(2000, 0, 1)), // by a clock that is wrong
  });

test("endpoints there are endpoints here, by the service's name, for as long as they are there", async () => {
  const { there, service, found, names, registries, clock } = build();
  await service("web", ["west"]);
  there.put(record("nse@west", ["web@west"], { app: "x", "nsm.io/domain": "east", "nsm.io/away": "true" }));
  await vi.waitFor(async () => expect(await names("web")).toEqual(["nse@west"]));
  const [entry] = await found();
  expect(entry).toMatchObject({
    networkServiceNames: ["web"],
    networkServiceLabels: { web: { labels: { app: "x", "nsm.io/domain": "west" } } },
    url: "tcp://192.0.2.1:5004",
  });
  expect(entry?.networkServiceLabels["web"]?.labels).not.toHaveProperty(["nsm.io/away"]);
  expect(entry?.expirationTime && timestampMs(entry.expirationTime)).toBe(clock.now() + 60_000);
  there.remove("nse@west");
  await vi.waitFor(async () => expect(await names("web")).toEqual([]));
  expect(registries.sizes().endpoints).toBe(0);
});

test("an endpoint of several services is of those that are taken from its domain", async () => {
  const { there, service, found, names } = build();
  await service("web", ["west"]);
  await service("api", ["west", "south"]);
  await service("own", []);
  there.put(record("nse@west", ["web@west", "api@west", "own@west"], { app: "x" }));
  there.put(record("nse@south", ["web@south", "api@south"]));
  await vi.waitFor(async () => {
    expect(await names("web")).toEqual(["nse@west"]);
    expect(await names("api")).toEqual(["nse@south", "nse@west"]);
  });
  expect(await names("own")).toEqual([]);
  await service("web", []);
  await vi.waitFor(async () => expect(await names("web")).toEqual([]));
  expect((await found({ name: "nse@west" }))[0]?.networkServiceNames).toEqual(["api"]);
});

test("a domain speaks for its own endpoints alone", async () => {
  const { there, service, names } = build();
  await service("web", ["west"]);
  for (const name of ["nse", "nse@east", "nse@west@far"]) there.put(record(name, ["web@west"]));
  there.put(record("good@west", ["web@west"]));
  await vi.waitFor(async () => expect(await names("web")).toEqual(["good@west"]));
});

test("more endpoints than ten thousand are not taken, and that is said once", async () => {
  const { there, service, names, warn } = build();
  await service("web", ["west"]);
  for (let i = 0; i < 10_003; i++) there.put(record(`nse-${i}@west`, ["web@west"]));
  await vi.waitFor(async () => expect(await names("web")).toHaveLength(10_000), { timeout: 30_000 });
  expect(warn).toHaveBeenCalledTimes(1);
});

test("a domain that is away for a second is marked, forgotten when its leases end, and back as it is by then", async () => {
  const { there, service, names, found, clock, setAway, finds } = build();
  const isAway = async () =>
    (await found()).map(({ networkServiceLabels: all }) => all["web"]?.labels["nsm.io/away"] ?? "false");
  await service("web", ["west"]);
  there.put(record("stays@west", ["web@west"]));
  there.put(record("goes@west", ["web@west"]));
  await vi.waitFor(async () => expect(await names("web")).toEqual(["goes@west", "stays@west"]));
  await clock.advance(20_000);
  const before = finds();
  setAway(true);
  await vi.waitFor(() => expect(finds()).toBeGreaterThan(before));
  await clock.advance(999);
  expect(await isAway()).toEqual(["false", "false"]);
  await clock.advance(2);
  await vi.waitFor(async () => expect(await isAway()).toEqual(["true", "true"]));
  there.remove("goes@west");
  await clock.advance(38_000);
  expect(await isAway()).toEqual(["true", "true"]);
  await clock.advance(2000); // a minute after it was heard of, and the registry looks each half second
  expect(await isAway()).toEqual([]);
  setAway(false);
  await vi.waitFor(async () => expect(await names("web")).toEqual(["stays@west"]), { timeout: 15_000 });
  // It is told of before the list is there that says that all is known.
  await vi.waitFor(async () => expect(await isAway()).toEqual(["false"]), { timeout: 15_000 });
});

test("a watch that breaks for a moment marks nobody, and what was deleted meanwhile is gone", async () => {
  const { there, service, names, clock, setAway, finds } = build();
  await service("web", ["west"]);
  for (const name of ["one@west", "two@west"]) there.put(record(name, ["web@west"]));
  await vi.waitFor(async () => expect(await names("web")).toEqual(["one@west", "two@west"]));
  const before = finds();
  setAway(true);
  there.remove("two@west");
  await vi.waitFor(() => expect(finds()).toBeGreaterThan(before));
  setAway(false);
  await vi.waitFor(async () => expect(await names("web")).toEqual(["one@west"]), { timeout: 15_000 });
  await clock.advance(5000);
  expect(await names("web")).toEqual(["one@west"]);
});

test("endpoints of a domain that nobody knows any more are gone at once, and there again with the domain", async () => {
  const { there, service, names, setAway } = build();
  await service("web", ["west"]);
  there.put(record("nse@west", ["web@west"]));
  await vi.waitFor(async () => expect(await names("web")).toEqual(["nse@west"]));
  setAway(true, new NsmError("NOT_FOUND", "domain-not-found", "the link was removed"));
  await vi.waitFor(async () => expect(await names("web")).toEqual([]));
  setAway(false);
  await vi.waitFor(async () => expect(await names("web")).toEqual(["nse@west"]), { timeout: 15_000 });
});

test("more services than a session bears watches are not followed into other domains, and that is said", async () => {
  const { service, watched, warn } = build();
  for (let i = 0; i < 802; i++) await service(`web-${i}`, ["west"]);
  await vi.waitFor(() => expect(warn).toHaveBeenCalledTimes(2), { timeout: 15_000 });
  expect(watched.size).toBe(800);
});

test("a domain is asked for few lists at once, however many services are taken from it", async () => {
  const { there, registries, service, lists } = build();
  for (let i = 0; i < 100; i++) there.put(record(`nse-${i}@west`, [`web-${i}@west`]));
  for (let i = 0; i < 100; i++) await service(`web-${i}`, ["west"]);
  await vi.waitFor(() => expect(registries.sizes().endpoints).toBe(100));
  await vi.waitFor(() => expect(lists.open).toBe(0));
  expect(lists.most).toBe(8);
});

test("endpoints of a domain that goes away are marked a few at a time, and whoever waits meanwhile is heard", async () => {
  const { there, registries, service, found, clock, setAway, finds, pauses } = build({ msPerLook: 0.25 });
  for (let i = 0; i < 100; i++) there.put(record(`nse-${i}@west`, ["web@west"]));
  await service("web", ["west"]);
  await vi.waitFor(() => expect(registries.sizes().endpoints).toBe(100));
  const before = finds();
  setAway(true);
  await vi.waitFor(() => expect(finds()).toBeGreaterThan(before));
  const pausesBefore = pauses();
  await clock.advance(1000);
  const isMarked = ({ networkServiceLabels: all }: NetworkServiceEndpoint) =>
    all["web"]?.labels["nsm.io/away"] === "true";
  expect((await found()).filter(isMarked)).toHaveLength(100);
  expect(pauses() - pausesBefore).toBeGreaterThan(10);
});
