/** T32 of federated domains: real sessions of two trust domains, and a registry that both may ask. */
import { create } from "@bufbuild/protobuf";
import { expect, onTestFinished, test } from "vitest";
import {
  NetworkServiceEndpointRegistry,
  NetworkServiceEndpointSchema,
  NetworkServiceRegistry,
  NetworkServiceSchema,
} from "../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { systemClock as clock } from "../sdk/clock.ts";
import { parseDnsDomains } from "../sdk/domains/dns-domains.ts";
import { followExportedServices } from "../sdk/domains/exports.ts";
import { peersByTrust } from "../sdk/domains/peers.ts";
import { handlersByDomain, handlersOf } from "../sdk/domains/serve-by-domain.ts";
import { openServer } from "../sdk/grpc/server.ts";
import { createSessionPool } from "../sdk/grpc/sessions.ts";
import { signToken } from "../sdk/jwt.ts";
import { silentLogger as log } from "../sdk/log.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import { createPresence } from "../sdk/registry/presence.ts";
import { findAll } from "../sdk/registry/registry.ts";
import type { RegistryContext } from "../sdk/registry/registry.ts";
import { EMPTY_PATH } from "../sdk/registry-path.ts";
import { verifySvid as verify } from "../sdk/spiffe/verify.ts";
import { createTokenMinter } from "../sdk/token.ts";
import { makeAuthority } from "../test/support/certificates.ts";
import type { TestAuthority } from "../test/support/certificates.ts";
import { openBed, until } from "../test/support/grpc.ts";
import { makeSource } from "../test/support/identity.ts";
import { createMemoryRegistries } from "./memory.ts";

const NEVER = new AbortController().signal;
/** As a caller that passes on what those with these tokens have begun. */
const calling = (...tokens: readonly string[]): RegistryContext => ({
  signal: NEVER,
  deadlineMs: undefined,
  peer: undefined,
  registration: {
    path: tokens.length === 0 ? EMPTY_PATH : { index: tokens.length, tokens: [...tokens, ""] },
  },
});

const endpoint = (name: string, ...pathIds: readonly string[]) =>
  create(NetworkServiceEndpointSchema, {
    name,
    networkServiceNames: ["web"],
    url: "tcp://203.0.113.1:5004",
    pathIds: [...pathIds],
  });

/** East's registry; `web` is exported to west, which may register endpoints of it, and `secret` is not. */
async function build() {
  const stack = new AsyncDisposableStack();
  onTestFinished(() => stack.disposeAsync());
  const bed = stack.use(await openBed());
  const [west, north] = [await makeAuthority("west.test"), await makeAuthority("north.test")];
  const bundles = new Map([...bed.authority.bundles, ...west.bundles, ...north.bundles]);
  const minter = createTokenMinter({ clock });
  const presence = createPresence();
  const registries = stack.use(
    createMemoryRegistries(clock, { trustDomain: "example.org", isPresent: presence.isPresent }),
  );
  await registries.services.register(
    create(NetworkServiceSchema, { name: "web", exportTo: ["west"], acceptEndpointsFrom: ["west"] }),
    calling(),
  );
  await registries.services.register(create(NetworkServiceSchema, { name: "secret" }), calling());
  const peers = peersByTrust(
    parseDnsDomains("west=west.test,north=north.test"),
    (id) => id.includes("/proxy/"),
    "example.org",
  );
  const exports = stack.use(followExportedServices(registries.services, clock, log));
  const serve = { minter, clock, ...registries, presence };
  const handlers = handlersByDomain({
    peers,
    exports,
    homeFor: () => registries,
    own: handlersOf(registries, { ...serve, mayRelay: (id) => id.includes("/nsmgr/") }),
    serve,
  });
  const source = await makeSource(bed.authority, "/registry", { bundles });
  const isNeighbour = (id: string) => peers.domainOf(id) !== undefined;
  stack.use(
    await openServer({ source, verify, clock, log, listen: [bed.url()], isNeighbour }, (add) => {
      add(NetworkServiceRegistry, handlers.services);
      add(NetworkServiceEndpointRegistry, handlers.endpoints);
    }),
  );
  const as = async (authority: TestAuthority, path: string) => {
    const own = await makeSource(authority, path, { bundles });
    const pool = stack.use(createSessionPool({ source: own, verify, clock, log }));
    return createRegistryClient({ pool, minter, clock, target: { url: bed.url() } });
  };
  await until("the exports", () => exports.isExported("web", "west"));
  /** A token of somebody who is behind west's proxy; nobody can tell whether it is. */
  const { privateKey } = (await makeSource(west, "/proxy/west")).current().svid;
  const tokenOf = (sub: string, aud = "spiffe://west.test/proxy/west") =>
    signToken({ sub, aud: [aud], exp: Math.floor(clock.now() / 1000) + 600 }, privateKey);
  return { as, own: bed.authority, west, north, tokenOf, registries };
}

const namesOf = async (registries: Awaited<ReturnType<Awaited<ReturnType<typeof build>>["as"]>>) => ({
  services: (await findAll(registries.services, create(NetworkServiceSchema), NEVER)).map(({ name }) => name),
  endpoints: (await findAll(registries.endpoints, create(NetworkServiceEndpointSchema), NEVER)).map(
    ({ name }: NetworkServiceEndpoint) => name,
  ),
});

test("a domain sees what is exported to it; another one nothing; and who is no proxy of theirs is not let in", async () => {
  const { as, own, west, north } = await build();
  const manager = await as(own, "/nsmgr/one");
  await manager.endpoints.register(endpoint("nse"), calling());
  expect(await namesOf(manager)).toEqual({ services: ["web", "secret"], endpoints: ["nse"] });
  expect(await namesOf(await as(west, "/proxy/west"))).toEqual({ services: ["web"], endpoints: ["nse"] });
  expect(await namesOf(await as(north, "/proxy/north"))).toEqual({ services: [], endpoints: [] });
  for (const path of ["/nsmgr/one", "/registry", "/workload/any"])
    await expect(namesOf(await as(west, path))).rejects.toMatchObject({ code: "UNAVAILABLE" });
});

test("T32: a federated domain takes no name that is taken, in whosever name it says that it asks", async () => {
  const { as, own, west, north, tokenOf, registries } = await build();
  const manager = await as(own, "/nsmgr/one");
  await manager.endpoints.register(endpoint("nse"), calling());
  const before = await findAll(registries.endpoints, create(NetworkServiceEndpointSchema), NEVER);
  const [proxy, other] = [await as(west, "/proxy/west"), await as(north, "/proxy/north")];
  const theirs = "spiffe://west.test/nse";
  const victim = before[0]?.pathIds[0] ?? "";
  const attempts: readonly (readonly [NetworkServiceEndpoint, RegistryContext])[] = [
    [endpoint("nse"), calling()],
    [endpoint("nse", theirs), calling(tokenOf(theirs))],
    [endpoint("nse", victim), calling(tokenOf(victim))],
    [endpoint("nse", theirs), calling(tokenOf(victim))],
    [endpoint("nse", victim), calling(tokenOf(theirs))],
    [endpoint("new", victim), calling(tokenOf(theirs))],
    [endpoint("new", victim), calling(tokenOf(victim))],
  ];
  for (const [record, { registration, ...ctx }] of attempts) {
    const copy = () => create(NetworkServiceEndpointSchema, { ...record, pathIds: [...record.pathIds] });
    const registered = proxy.endpoints.register(copy(), { ...ctx, registration: { ...registration } });
    await expect(registered, record.name).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
    // What is not there may be unregistered by anybody; what is, may not: it is there in the end.
    await proxy.endpoints
      .unregister(copy(), { ...ctx, registration: { ...registration } })
      .catch(() => undefined);
  }
  await expect(other.endpoints.register(endpoint("new"), calling())).rejects.toMatchObject({
    reason: "not-accepted",
  });
  await other.endpoints.unregister(endpoint("nse"), calling());
  expect(await findAll(registries.endpoints, create(NetworkServiceEndpointSchema), NEVER)).toEqual(before);
});

test("T32: a name that a federated domain was first to take is its owner's of this domain at once", async () => {
  const { as, own, west, registries, tokenOf } = await build();
  const proxy = await as(west, "/proxy/west");
  const theirs = "spiffe://west.test/nse";
  const squat = () => proxy.endpoints.register(endpoint("nse", theirs), calling(tokenOf(theirs)));
  await squat();
  const stop = new AbortController();
  const query = { entry: create(NetworkServiceEndpointSchema, { name: "nse" }), watch: true };
  const watching = (async () => {
    for await (const _ of proxy.endpoints.find(query, { signal: stop.signal })); // it is present
  })().catch(() => undefined);
  const manager = await as(own, "/nsmgr/one");
  await manager.endpoints.register(endpoint("nse"), calling());
  await expect(squat()).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
  const [found] = await findAll(registries.endpoints, query.entry, NEVER);
  expect(found?.pathIds[0]).toBe("spiffe://example.org/nsmgr/one");
  stop.abort();
  await watching;
});

test("T32: it changes no service, reserved or not", async () => {
  const { as, west, registries } = await build();
  const proxy = await as(west, "/proxy/west");
  const forged = (name: string) =>
    create(NetworkServiceSchema, { name, payload: "ETHERNET", exportTo: ["*"] });
  for (const name of ["secret", "forwarder", "new"])
    await expect(proxy.services.register(forged(name), calling())).rejects.toMatchObject({
      reason: "not-accepted",
    });
  await proxy.services.register(forged("web"), calling());
  await proxy.services.unregister(forged("secret"), calling());
  const services = await findAll(registries.services, create(NetworkServiceSchema), NEVER);
  expect(services.map(({ name, payload, exportTo }) => [name, payload, exportTo])).toEqual([
    ["web", "IP", ["west"]],
    ["secret", "IP", []],
  ]);
});
