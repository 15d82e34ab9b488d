import { generateKeyPairSync } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { expect, onTestFinished, test } from "vitest";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import { createMemoryRegistries } from "../../registry/memory.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { makePeer } from "../../test/support/peer.ts";
import { signToken } from "../jwt.ts";
import { EMPTY_PATH } from "../registry-path.ts";
import { findAll } from "../registry/registry.ts";
import type { Registry, RegistryContext } from "../registry/registry.ts";
import { exportedRegistries } from "./exported.ts";
import { exportsOf } from "./exports.ts";
import type { Export } from "./exports.ts";

const NEVER = new AbortController().signal;
const LOCAL: RegistryContext = {
  signal: NEVER,
  deadlineMs: undefined,
  peer: undefined,
  registration: { path: EMPTY_PATH },
};

const service = (name: string) => create(NetworkServiceSchema, { name });
const endpoint = (name: string, ...services: readonly string[]) =>
  create(NetworkServiceEndpointSchema, {
    name,
    networkServiceNames: [...services],
    networkServiceLabels: Object.fromEntries(services.map((each) => [each, { labels: { of: each } }])),
    url: "tcp://192.0.2.1:5001",
  });

async function build(...first: readonly Export[]) {
  const home = createMemoryRegistries(createFakeClock());
  onTestFinished(() => home[Symbol.dispose]());
  for (const name of ["web", "db", "secret"]) await home.services.register(service(name), LOCAL);
  await home.endpoints.register(endpoint("nse", "web", "db", "secret"), LOCAL);
  await home.endpoints.register(endpoint("hidden", "secret"), LOCAL);
  await home.endpoints.register(endpoint("nse@north", "web"), LOCAL);
  let current = first;
  const listeners = new Set<() => void>();
  const exports = exportsOf(
    () => current,
    (listener) => {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
  );
  const change = (...next: readonly Export[]) => {
    current = next;
    for (const listener of listeners) listener();
  };
  const isElsewhere = ({ name }: NetworkServiceEndpoint) => name.startsWith("far");
  const to = (domain: string) => exportedRegistries({ home, exports, domain, isElsewhere });
  return { home, change, to, listeners };
}

const to = (domain: string, name: string, acceptEndpoints = false): Export => ({
  service: name,
  domain,
  acceptEndpoints,
});

const namesIn = async <T extends { readonly name: string }>(registry: Registry<T>, query: T) =>
  (await findAll(registry, query, NEVER)).map(({ name }) => name);

test("a domain sees the services that are exported to it, and nobody sees others", async () => {
  const { to: shown } = await build(to("west", "web"), to("*", "db"));
  expect(await namesIn(shown("west").services, service(""))).toEqual(["web", "db"]);
  expect(await namesIn(shown("north").services, service(""))).toEqual(["db"]);
  expect(await namesIn(shown("west").services, service("secret"))).toEqual([]);
  expect(await namesIn((await build()).to("west").services, service(""))).toEqual([]);
});

test("of an endpoint it sees what belongs to those services, and not where it is", async () => {
  const { to: shown } = await build(to("west", "web"), to("west", "db"));
  const [found, ...others] = await findAll(
    shown("west").endpoints,
    create(NetworkServiceEndpointSchema),
    NEVER,
  );
  expect(others).toEqual([]);
  expect(found).toMatchObject({ name: "nse", networkServiceNames: ["web", "db"], url: "" });
  expect(Object.keys(found?.networkServiceLabels ?? {})).toEqual(["web", "db"]);
});

test("what it asks for beyond that is not there", async () => {
  const { to: shown } = await build(to("west", "web"));
  const { endpoints } = shown("west");
  const ask = (query: MessageInitShape<typeof NetworkServiceEndpointSchema>) =>
    namesIn(endpoints, create(NetworkServiceEndpointSchema, query));
  expect(await ask({ networkServiceNames: ["web"] })).toEqual(["nse"]);
  expect(await ask({ networkServiceNames: ["secret"] })).toEqual([]);
  expect(await ask({ networkServiceNames: ["web", "secret"] })).toEqual([]);
  expect(await ask({ name: "hidden" })).toEqual([]);
  expect(await ask({ url: "192.0.2.1" })).toEqual([]);
});

test("nobody is led to a third domain", async () => {
  const { to: shown } = await build(to("*", "web"), to("*", "web@north"));
  const { services, endpoints } = shown("west");
  const third = { reason: "third-domain" };
  await expect(namesIn(services, service("web@north"))).rejects.toMatchObject(third);
  await expect(namesIn(endpoints, endpoint("nse@north"))).rejects.toMatchObject(third);
  await expect(namesIn(endpoints, endpoint("", "web@north"))).rejects.toMatchObject(third);
});

test("a watch tells of what is exported later, and that it is gone when it is withdrawn", async () => {
  const { home, change, to: shown, listeners } = await build();
  const stop = new AbortController();
  const told: string[] = [];
  const query = { entry: create(NetworkServiceEndpointSchema), watch: true };
  const watching = (async () => {
    for await (const { entry, deleted } of shown("west").endpoints.find(query, { signal: stop.signal }))
      told.push(`${deleted ? "-" : "+"}${entry.name}:${entry.networkServiceNames.join()}`);
  })();
  const next = async (...words: readonly string[]) => {
    await expect.poll(() => told.splice(0)).toEqual(words);
  };
  await expect.poll(() => listeners.size).toBe(1);
  change(to("west", "web"));
  await next("+nse:web");
  change(to("west", "web"), to("west", "db"));
  await next("+nse:web,db");
  await home.endpoints.register(endpoint("other", "secret"), LOCAL);
  await home.endpoints.register(endpoint("second", "db"), LOCAL);
  await next("+second:db");
  change();
  await next("-nse:web,db", "-second:db");
  await home.endpoints.unregister(endpoint("second"), LOCAL);
  change(to("west", "web"));
  await next("+nse:web");
  stop.abort();
  await watching;
  expect(listeners.size).toBe(0);
  expect(told).toEqual([]);
});

const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });

/** A call of west's proxy for whoever the tokens name. */
async function callOf(...subjects: readonly string[]): Promise<RegistryContext> {
  const tokens = [...subjects, "spiffe://example.org/proxy"].map((sub) => signToken({ sub }, privateKey));
  const peer = { ...(await makePeer("/proxy/west")), spiffeId: "spiffe://west.nsm/proxy/west" };
  return { ...LOCAL, peer, registration: { path: { index: subjects.length, tokens } } };
}

test("a domain registers endpoints of the services that accept them, in the name of its own people", async () => {
  const { home, to: shown } = await build(to("west", "web", true), to("west", "db"));
  const { endpoints } = shown("west");
  const call = await callOf("spiffe://west.nsm/nse", "spiffe://west.nsm/proxy/west");
  await endpoints.register(endpoint("far", "web"), call);
  expect(await namesIn(home.endpoints, endpoint("far"))).toEqual(["far"]);
  const [found] = await findAll(endpoints, create(NetworkServiceEndpointSchema, { name: "far" }), NEVER);
  expect(found?.url).toBe("tcp://192.0.2.1:5001");
  for (const [refused, reason] of [
    [endpoint("far", "web", "db"), "not-accepted"],
    [endpoint("far"), "not-accepted"],
    [endpoint("far", "none"), "not-accepted"],
    [endpoint("far@north", "web"), "third-domain"],
    [endpoint("far", "web@north"), "third-domain"],
  ] as const)
    await expect(endpoints.register(refused, call)).rejects.toMatchObject({ reason });
  await endpoints.unregister(endpoint("far"), call);
  expect(await namesIn(home.endpoints, endpoint("far"))).toEqual([]);
});

test.for(["spiffe://example.org/nse", "spiffe://north.nsm/nse", "nobody"])(
  "it does not speak for %s",
  async (subject) => {
    const { to: shown } = await build(to("west", "web", true));
    const call = await callOf(subject, "spiffe://west.nsm/proxy/west");
    const forged = { code: "PERMISSION_DENIED", reason: "forged-name" };
    await expect(shown("west").endpoints.register(endpoint("far", "web"), call)).rejects.toMatchObject(
      forged,
    );
    await expect(shown("west").endpoints.unregister(endpoint("nse"), call)).rejects.toMatchObject(forged);
  },
);

test("it does not say that a record is somebody else's", async () => {
  const { to: shown } = await build(to("west", "web", true));
  const call = await callOf("spiffe://west.nsm/nse", "spiffe://west.nsm/proxy/west");
  const record = endpoint("far", "web");
  record.pathIds = ["spiffe://example.org/nse", "spiffe://west.nsm/proxy/west"];
  await expect(shown("west").endpoints.register(record, call)).rejects.toMatchObject({
    reason: "forged-name",
  });
});

test("it changes no service, and one that takes its endpoints in says how it is defined", async () => {
  const { home, to: shown } = await build(to("west", "web", true), to("north", "web"));
  const call = await callOf("spiffe://west.nsm/nse", "spiffe://west.nsm/proxy/west");
  const forged = create(NetworkServiceSchema, { name: "web", payload: "ETHERNET", exportTo: ["*"] });
  const answer = await shown("west").services.register(forged, call);
  expect(answer).toMatchObject({ name: "web", payload: "IP", exportTo: [] });
  await shown("west").services.unregister(service("web"), call);
  expect(await namesIn(home.services, service("web"))).toEqual(["web"]);
  await expect(shown("north").services.register(forged, call)).rejects.toMatchObject({
    reason: "not-accepted",
  });
});
