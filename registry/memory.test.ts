import { create } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import { parseRefusedAddresses } from "../sdk/endpoint-url.ts";
import type { Peer } from "../sdk/grpc/peer.ts";
import { EMPTY_PATH } from "../sdk/registry-path.ts";
import { findAll } from "../sdk/registry/registry.ts";
import type { RegistryContext } from "../sdk/registry/registry.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { makePeer } from "../test/support/peer.ts";
import { createMemoryRegistries } from "./memory.ts";

const [one, two] = [await makePeer("/nsmgr/node1"), await makePeer("/nsmgr/node2")];

const CONTEXT: RegistryContext = {
  signal: new AbortController().signal,
  deadlineMs: undefined,
  peer: undefined,
  registration: { path: EMPTY_PATH },
};

function build() {
  const clock = createFakeClock();
  const registries = createMemoryRegistries(clock);
  const names = async () =>
    (await findAll(registries.endpoints, create(NetworkServiceEndpointSchema), CONTEXT.signal)).map(
      ({ name }) => name,
    );
  return { clock, registries, names };
}

const endpoint = (name: string, expiresMs?: number) =>
  create(NetworkServiceEndpointSchema, {
    name,
    networkServiceNames: ["service"],
    url: "tcp://192.0.2.1:5001",
    ...(expiresMs === undefined ? {} : { expirationTime: timestampFromMs(expiresMs) }),
  });

describe("endpoints", () => {
  test("that end together are taken out a few at a time, and others are served between", async () => {
    const clock = createFakeClock();
    let busyMs = 0;
    const registries = createMemoryRegistries({ ...clock, monotonic: () => busyMs++ });
    const left = () => registries.sizes().endpoints;
    for (let i = 0; i < 100; i++) await registries.endpoints.register(endpoint(`nse-${i}`), CONTEXT);
    const query = { entry: endpoint(""), watch: true };
    const stop = new AbortController();
    const seen = new Set<number>();
    const watch = async () => {
      query.entry.url = "";
      for await (const { deleted } of registries.endpoints.find(query, stop)) if (deleted) seen.add(left());
    };
    const watching = watch();
    await clock.advance(60_000);
    expect(left()).toBe(0);
    expect(seen.size).toBeGreaterThan(10);
    stop.abort();
    await watching;
    registries[Symbol.dispose]();
  });

  test("live a minute, unless they ask for less", async () => {
    const { clock, registries, names } = build();
    const now = clock.now();
    const long = await registries.endpoints.register(endpoint("long", now + 3_600_000), CONTEXT);
    const short = await registries.endpoints.register(endpoint("short", now + 10_000), CONTEXT);
    const wish = await registries.endpoints.register(endpoint("none"), CONTEXT);
    const lives = [long, short, wish].map(
      ({ expirationTime }) => expirationTime && timestampMs(expirationTime) - now,
    );
    expect(lives).toEqual([60_000, 10_000, 60_000]);
    await clock.advance(10_500);
    expect(await names()).toEqual(["long", "none"]);
    await clock.advance(50_000);
    expect(await names()).toEqual([]);
  });

  test("live no longer than the tokens of who registers and who stores", async () => {
    const { clock, registries } = build();
    const latestExpiryMs = clock.now() + 12_000;
    const stored = await registries.endpoints.register(endpoint("a"), { ...CONTEXT, latestExpiryMs });
    expect(stored.expirationTime && timestampMs(stored.expirationTime)).toBe(latestExpiryMs);
  });

  test("keep the time of their first registration until they leave", async () => {
    const { clock, registries } = build();
    const first = await registries.endpoints.register(endpoint("a"), CONTEXT);
    await clock.advance(20_000);
    const again = await registries.endpoints.register(endpoint("a"), CONTEXT);
    expect(again.initialRegistrationTime).toEqual(first.initialRegistrationTime);
    await registries.endpoints.unregister(endpoint("a"), CONTEXT);
    const later = await registries.endpoints.register(endpoint("a"), CONTEXT);
    expect(later.initialRegistrationTime).not.toEqual(first.initialRegistrationTime);
  });

  test("that expire are told to watchers as deleted, and their name is free", async () => {
    const { clock, registries } = build();
    const mine = endpoint("a");
    mine.pathIds = ["spiffe://example.org/a"];
    await registries.endpoints.register(mine, CONTEXT);
    expect(registries.ownersOfEndpoint("a", "spiffe://example.org/b")).toEqual(["spiffe://example.org/a"]);
    const stream = registries.endpoints.find({ entry: endpoint("a"), watch: true }, CONTEXT);
    const watch = stream[Symbol.asyncIterator]();
    await watch.next();
    const deleted = watch.next();
    await clock.advance(61_000);
    expect(await deleted).toMatchObject({ value: { deleted: true, entry: { name: "a" } } });
    expect(registries.ownersOfEndpoint("a", "spiffe://example.org/b")).toBeUndefined();
  });

  test("of another domain keep nobody of this one from their names", async () => {
    const clock = createFakeClock();
    const registries = createMemoryRegistries(clock, {
      trustDomain: "example.org",
      isPresent: () => true,
    });
    const of = (id: string) => create(NetworkServiceEndpointSchema, { ...endpoint("a"), pathIds: [id] });
    const by = (peer: Peer): RegistryContext => ({ ...CONTEXT, peer });
    await registries.endpoints.register(of("spiffe://west.nsm/nse"), by(one));
    const ours = "spiffe://example.org/nse";
    expect(registries.ownersOfEndpoint("a", ours)).toBeUndefined();
    expect(registries.ownersOfEndpoint("a", "spiffe://north.nsm/nse")).toEqual(["spiffe://west.nsm/nse"]);
    await registries.endpoints.register(of(ours), by(two));
    expect(registries.ownersOfEndpoint("a", "spiffe://west.nsm/nse")).toEqual([ours]);
    expect(registries.ownersOfEndpoint("a", "spiffe://example.org/other")).toEqual([ours]);
  });

  test("need a name", () => {
    const { registries } = build();
    expect(() => registries.endpoints.register(endpoint(""), CONTEXT)).toThrow(
      expect.objectContaining({ code: "INVALID_ARGUMENT", reason: "name-missing" }),
    );
  });

  test("the stored record is not the caller's message", async () => {
    const { registries } = build();
    const mine = endpoint("a");
    await registries.endpoints.register(mine, CONTEXT);
    mine.url = "changed afterwards";
    const query = create(NetworkServiceEndpointSchema, { name: "a" });
    const [stored] = await findAll(registries.endpoints, query, CONTEXT.signal);
    expect(stored?.url).toBe("tcp://192.0.2.1:5001");
  });

  test("no timer is left behind", () => {
    const { clock, registries } = build();
    registries[Symbol.dispose]();
    expect(clock.armed).toBe(0);
  });
});

describe("what a manager has registered", () => {
  const by = (peer: Peer): RegistryContext => ({ ...CONTEXT, peer });
  const denied = expect.objectContaining({ code: "PERMISSION_DENIED", reason: "other-manager" });
  const connected = () => {
    const present = new Set([one.spiffeId, two.spiffeId]);
    const clock = createFakeClock(Date.now());
    const { endpoints } = createMemoryRegistries(clock, { isPresent: (id) => present.has(id) });
    return { present, clock, endpoints };
  };

  test("is changed by nobody else while it is connected", async () => {
    const { endpoints } = connected();
    await endpoints.register(endpoint("a"), by(one));
    expect(() => endpoints.register(endpoint("a"), by(two))).toThrow(denied);
    expect(() => endpoints.unregister(endpoint("a"), by(two))).toThrow(denied);
    await endpoints.register(endpoint("a"), by(one));
    await endpoints.unregister(endpoint("a"), by(one));
    await endpoints.register(endpoint("a"), by(two));
  });

  test("may be taken over once it has gone, and is then the other's", async () => {
    const { endpoints, present } = connected();
    await endpoints.register(endpoint("a"), by(one));
    present.delete(one.spiffeId);
    await endpoints.register(endpoint("a"), by(two));
    present.add(one.spiffeId);
    expect(() => endpoints.register(endpoint("a"), by(one))).toThrow(denied);
  });

  test("is free when it has run out", async () => {
    const { endpoints, clock } = connected();
    await endpoints.register(endpoint("a"), by(one));
    await clock.advance(61_000);
    expect(await endpoints.register(endpoint("a"), by(two))).toMatchObject({ name: "a" });
  });
});

describe("a network service", () => {
  const by = (peer: Peer): RegistryContext => ({ ...CONTEXT, peer });
  const denied = (reason: string) => expect.objectContaining({ code: "PERMISSION_DENIED", reason });
  const service = (app?: string) =>
    create(NetworkServiceSchema, {
      name: "service",
      payload: "IP",
      matches: app === undefined ? [] : [{ routes: [{ destinationSelector: { app } }] }],
    });
  const connected = async () => {
    const present = new Set([one.spiffeId, two.spiffeId]);
    const registries = createMemoryRegistries(createFakeClock(Date.now()), {
      isPresent: (id) => present.has(id),
    });
    const { services, endpoints } = registries;
    await services.register(service("a"), by(one));
    const apps = async () => {
      const [found] = await findAll(services, create(NetworkServiceSchema), CONTEXT.signal);
      return found?.matches.flatMap(({ routes }) => routes.map((route) => route.destinationSelector["app"]));
    };
    return { present, services, endpoints, apps };
  };

  test("is changed by no other manager while the one that brought it has endpoints of it", async () => {
    const { services, endpoints, apps } = await connected();
    await endpoints.register(endpoint("a"), by(one));
    await endpoints.register(endpoint("b"), by(two));
    expect(() => services.register(service("evil"), by(two))).toThrow(denied("other-manager"));
    expect(() => services.unregister(service(), by(two))).toThrow(denied("other-manager"));
    expect(await apps()).toEqual(["a"]);
    await services.register(service("b"), by(one));
    expect(await apps()).toEqual(["b"]);
  });

  test("may be registered by all that say the same", async () => {
    const { services, endpoints } = await connected();
    await endpoints.register(endpoint("a"), by(one));
    expect(await services.register(service("a"), by(two))).toMatchObject({ name: "service" });
    expect(() => services.register(service("evil"), by(two))).toThrow(denied("other-manager"));
  });

  test("goes over to another manager with its endpoints, or when the first has gone", async () => {
    const { services, endpoints, present, apps } = await connected();
    await services.register(service("moved"), by(two));
    expect(await apps()).toEqual(["moved"]);
    await endpoints.register(endpoint("b"), by(two));
    expect(() => services.register(service("back"), by(one))).toThrow(denied("other-manager"));
    present.delete(two.spiffeId);
    await services.register(service("back"), by(one));
    expect(await apps()).toEqual(["back"]);
  });

  test("that the registry was given by a file is changed by no manager, whatever owner it claims", async () => {
    const { services, apps } = await connected();
    await services.register(service("file"), CONTEXT);
    expect(() => services.register(service("evil"), by(one))).toThrow(denied("service-of-registry"));
    expect(() => services.unregister(service(), by(one))).toThrow(denied("service-of-registry"));
    await services.register(service("file"), by(two));
    expect(await apps()).toEqual(["file"]);
    await services.unregister(service(), CONTEXT);
    await services.register(service("free"), by(two));
    expect(await apps()).toEqual(["free"]);
  });
});

test.for([
  ["tcp://127.0.0.1:5001", "refused-address"],
  ["tcp://localhost:5001", "bad-endpoint-url"],
] as const)("an endpoint at %s is refused with %s", ([url, reason]) => {
  const refusedAddresses = parseRefusedAddresses("127.0.0.0/8");
  using registries = createMemoryRegistries(createFakeClock(), { refusedAddresses });
  expect(() => registries.endpoints.register({ ...endpoint("a"), url }, CONTEXT)).toThrow(
    expect.objectContaining({ reason }),
  );
});

test("a manager of a node without network may register", async () => {
  const refusedAddresses = parseRefusedAddresses("127.0.0.0/8");
  using registries = createMemoryRegistries(createFakeClock(), { refusedAddresses });
  for (const url of ["unix:///run/nsmgr.sock", "tcp://:5001"])
    expect(await registries.endpoints.register({ ...endpoint("a"), url }, CONTEXT)).toMatchObject({ url });
});

test("a network service without payload carries IP, and never expires", async () => {
  const { clock, registries } = build();
  const stored = await registries.services.register(create(NetworkServiceSchema, { name: "s" }), CONTEXT);
  expect(stored.payload).toBe("IP");
  await clock.advance(24 * 3_600_000);
  expect(
    await findAll(registries.services, create(NetworkServiceSchema, { name: "s" }), CONTEXT.signal),
  ).toHaveLength(1);
});

test("nobody who registers a service says which other domains it has to do with", async () => {
  const { registries } = build();
  const all = { exportTo: ["*"], importFrom: ["west"], acceptEndpointsFrom: ["west"] };
  const forged = create(NetworkServiceSchema, { name: "web", ...all });
  await registries.services.register(forged, { ...CONTEXT, peer: one });
  const stored = () => findAll(registries.services, create(NetworkServiceSchema), CONTEXT.signal);
  expect(await stored()).toMatchObject([{ exportTo: [], importFrom: [], acceptEndpointsFrom: [] }]);
  await registries.services.register(create(NetworkServiceSchema, { name: "web", ...all }), CONTEXT);
  await registries.services.register(create(NetworkServiceSchema, { name: "web" }), {
    ...CONTEXT,
    peer: one,
  });
  expect(await stored()).toMatchObject([all]);
});
