import { create } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { afterEach, describe, expect, test, vi } from "vitest";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import { createMemoryRegistries } from "../registry/memory.ts";
import type { Peer } from "../sdk/grpc/peer.ts";
import { parseRefusedAddresses } from "../sdk/endpoint-url.ts";
import { NsmError } from "../sdk/errors.ts";
import { silentLogger } from "../sdk/log.ts";
import { EMPTY_PATH } from "../sdk/registry-path.ts";
import { findAll } from "../sdk/registry/registry.ts";
import type { RegistryContext } from "../sdk/registry/registry.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { makePeer } from "../test/support/peer.ts";
import { startSleeper } from "../test/support/sleeper.ts";
import { createLocalEndpoints } from "./local-endpoints.ts";
import { createManagerRegistries } from "./registry.ts";

const PUBLIC = "tcp://192.0.2.1:5001";

let cleanup = new DisposableStack();
afterEach(() => {
  cleanup.dispose();
  cleanup = new DisposableStack();
});

function build() {
  const clock = createFakeClock(Date.now());
  const upstream = cleanup.use(createMemoryRegistries(clock));
  const local = createLocalEndpoints(clock);
  const forwarders: string[] = [];
  const registries = cleanup.use(
    createManagerRegistries({
      upstream,
      local,
      publicUrl: PUBLIC,
      forwarderService: "forwarder",
      mayForward: (id) => id === forwarder.spiffeId,
      info: new Map([["nodeName", "node-1"]]),
      refusedAddresses: parseRefusedAddresses("127.0.0.0/8"),
      onForwarder: (url) => forwarders.push(url),
      clock,
      log: silentLogger,
    }),
  );
  const found = (from: typeof upstream.endpoints, name = "") =>
    findAll(from, create(NetworkServiceEndpointSchema, { name }), AbortSignal.timeout(10_000));
  return {
    clock,
    local,
    forwarders,
    registries,
    upstream,
    published: () => found(upstream.endpoints),
    seen: () => found(registries.endpoints),
  };
}

const nse = await makePeer("/nse/a", process.pid);
const remote = await makePeer("/nse/a");
const forwarder = await makePeer("/forwarder/n", process.pid);

/** A call by an endpoint on this node. */
const local = () => context(nse);

function context(peer: Peer | undefined): RegistryContext {
  return {
    signal: AbortSignal.timeout(5000),
    deadlineMs: undefined,
    peer,
    registration: { path: EMPTY_PATH },
  };
}

const record = (name: string, url: string, service = "service") =>
  create(NetworkServiceEndpointSchema, {
    name,
    url,
    networkServiceNames: [service],
    networkServiceLabels: { [service]: { labels: { app: "x" } } },
  });

describe("register", () => {
  test("publishes the manager's URL, and answers with the caller's", async () => {
    const { registries, published, clock } = build();
    const answer = await registries.endpoints.register(record("a", "unix:///run/a.sock"), local());
    expect(answer.url).toBe("unix:///run/a.sock");
    const [upstream] = await published();
    expect(upstream).toMatchObject({ name: "a", url: PUBLIC });
    expect(upstream?.networkServiceLabels["service"]?.labels).toEqual({ app: "x", nodeName: "node-1" });
    expect(upstream?.expirationTime && timestampMs(upstream.expirationTime)).toBe(clock.now() + 60_000);
  });

  test("lasts no longer than the tokens of who registers and of the manager", async () => {
    const { registries, published, clock } = build();
    const latestExpiryMs = clock.now() + 12_000;
    await registries.endpoints.register(record("a", "unix:///run/a.sock"), { ...local(), latestExpiryMs });
    const [upstream] = await published();
    expect(upstream?.expirationTime && timestampMs(upstream.expirationTime)).toBe(latestExpiryMs);
  });

  test("adds the node's labels to the labels that there are, and makes none", async () => {
    const { registries, published } = build();
    const bare = create(NetworkServiceEndpointSchema, { name: "a", url: "unix:///run/a.sock" });
    bare.networkServiceNames.push("service");
    await registries.endpoints.register(bare, local());
    expect((await published())[0]?.networkServiceLabels).toEqual({});
  });

  test("of a forwarder is told, each time, and of an endpoint is not", async () => {
    const { registries, forwarders } = build();
    const fwd = record("fwd", "unix:///run/fwd.sock", "forwarder");
    await registries.endpoints.register(record("a", "unix:///run/a.sock"), local());
    await registries.endpoints.register(fwd, context(forwarder));
    await registries.endpoints.register(fwd, context(forwarder));
    expect(forwarders).toEqual(["unix:///run/fwd.sock", "unix:///run/fwd.sock"]);
  });

  test("a network service without a name goes no further", async () => {
    const { registries } = build();
    await expect(registries.services.register(create(NetworkServiceSchema), local())).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      reason: "name-missing",
    });
  });

  test("finds show where a local endpoint is, in the root of its own process", async () => {
    const { registries, seen } = build();
    await registries.endpoints.register(record("a", "unix:///run/a.sock"), local());
    expect((await seen())[0]?.url).toBe(`unix:///proc/${process.pid}/root/run/a.sock`);
  });

  test.each([
    ["", "bad-endpoint-url"],
    ["http://192.0.2.9/", "bad-endpoint-url"],
    ["unix://relative", "bad-endpoint-url"],
    ["inode://4/17", "bad-endpoint-url"],
    ["tcp://host:port", "bad-endpoint-url"],
    ["tcp://localhost:6379", "bad-endpoint-url"],
    ["file:///etc/passwd", "bad-endpoint-url"],
    ["unix:///run/a.sock\r\n", "bad-endpoint-url"],
    ["unix:///run/a\u0000.sock", "bad-endpoint-url"],
  ])("refuses the url %j, naming the endpoint", async (url, reason) => {
    const { registries, published } = build();
    await expect(registries.endpoints.register(record("a", url), local())).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      reason,
      message: expect.stringContaining("a"),
    });
    expect(await published()).toEqual([]);
  });

  test("an endpoint whose socket was passed as a descriptor is told what to do instead", async () => {
    const { registries } = build();
    const registered = registries.endpoints.register(record("a", "inode://4/17"), local());
    await expect(registered).rejects.toThrow(
      /listen on tcp:\/\/address:port, or register the unix:\/\/\/path/,
    );
  });

  test("an endpoint is not where nobody is dialled", async () => {
    const { registries, published } = build();
    await expect(
      registries.endpoints.register(record("a", "tcp://127.0.0.1:6379"), local()),
    ).rejects.toMatchObject({ code: "PERMISSION_DENIED", reason: "refused-address" });
    expect(await published()).toEqual([]);
  });

  test("a socket of another node is not shown: its path means something else here", async () => {
    const { upstream, seen } = build();
    await upstream.endpoints.register(record("lone", "unix:///run/nsmgr.sock"), context(undefined));
    await upstream.endpoints.register(record("far", "tcp://192.0.2.2:5001"), context(undefined));
    expect((await seen()).map(({ name }) => name)).toEqual(["far"]);
  });

  test("a unix socket is believed only from a process on this node", async () => {
    const { registries } = build();
    await expect(
      registries.endpoints.register(record("a", "unix:///run/a.sock"), context(remote)),
    ).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
      reason: "not-local",
    });
  });

  test("nobody but a forwarder may serve as one", async () => {
    const { registries, local: locals } = build();
    const wish = () => record("f", "unix:///run/f.sock", "forwarder");
    await expect(registries.endpoints.register(wish(), local())).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
      reason: "not-a-forwarder",
    });
    await registries.endpoints.register(wish(), context(forwarder));
    expect(locals.hopTo("f", "forwarder")?.url).toBe("unix:///run/f.sock");
  });
});

describe("find", () => {
  test("hides what stands under our URL and has not registered since we started", async () => {
    const { upstream, seen } = build();
    await upstream.endpoints.register(record("stale", PUBLIC), context(undefined));
    await upstream.endpoints.register(record("far", "tcp://192.0.2.2:5001"), context(undefined));
    expect((await seen()).map(({ name }) => name)).toEqual(["far"]);
  });
});

describe("finding while registering", () => {
  test("a watcher hears of a new endpoint at once, although the registry tells it before it answers us", async () => {
    const { registries } = build();
    const stop = new AbortController();
    const query = { entry: create(NetworkServiceEndpointSchema), watch: true };
    const watch = registries.endpoints.find(query, { signal: stop.signal })[Symbol.asyncIterator]();
    const told = watch.next();
    await registries.endpoints.register(record("a", "unix:///run/a.sock"), local());
    expect(await told).toMatchObject({
      value: { entry: { url: `unix:///proc/${process.pid}/root/run/a.sock` } },
    });
    stop.abort();
  });
});

describe("finding what registers in another domain", () => {
  /** A registry in which everything has the address of a proxy, as what stands in another domain has. */
  function buildElsewhere() {
    const built = build();
    const { endpoints } = built.upstream;
    const register = endpoints.register.bind(endpoints);
    endpoints.register = async ({ ...entry }, ctx) => ({
      ...(await register({ ...entry, url: PROXY }, ctx)),
      url: entry.url,
    });
    const query = { entry: create(NetworkServiceEndpointSchema), watch: true };
    const stop = new AbortController();
    cleanup.defer(() => stop.abort());
    const watch = built.registries.endpoints.find(query, { signal: stop.signal })[Symbol.asyncIterator]();
    return { ...built, watch };
  }
  const PROXY = "tcp://192.0.2.9:5004";
  const owned = (name: string, owner: string) => ({
    ...record(name, "unix:///run/a.sock"),
    pathIds: [owner, "spiffe://example.org/nsmgr/n"],
  });

  test("a watcher hears where it is, and not of the proxy, although the registry tells it before it answers us", async () => {
    const { registries, upstream, watch } = buildElsewhere();
    await upstream.endpoints.register(owned("a@floating", nse.spiffeId), context(undefined)); // of our earlier life
    expect(await watch.next()).toMatchObject({ value: { entry: { url: PROXY } } });
    const told = watch.next();
    await registries.endpoints.register(owned("a@floating", nse.spiffeId), local());
    expect(await told).toMatchObject({
      value: { entry: { url: `unix:///proc/${process.pid}/root/run/a.sock` } },
    });
  });

  test("a name that somebody else has stays his while it is asked for here", async () => {
    const { registries, upstream, watch } = buildElsewhere();
    const taken = upstream.endpoints.register.bind(upstream.endpoints);
    upstream.endpoints.register = async (entry, ctx) => {
      await taken(owned("a@floating", remote.spiffeId), ctx); // he renews it just now
      throw new NsmError("PERMISSION_DENIED", "name-taken", entry.name);
    };
    const told = watch.next();
    const wish = owned("a@floating", "spiffe://example.org/nse/stranger");
    await expect(registries.endpoints.register(wish, local())).rejects.toThrow("a@floating");
    expect(await told).toMatchObject({ value: { entry: { url: PROXY } } });
  });
});

describe("names of forwarders", () => {
  test("stay theirs after they left: connections remember their forwarder by name", async () => {
    const { registries } = build();
    await registries.endpoints.register(record("f", "unix:///run/f.sock", "forwarder"), context(forwarder));
    await registries.endpoints.unregister(record("f", ""), context(forwarder));
    await expect(
      registries.endpoints.register(record("f", "unix:///run/x.sock"), local()),
    ).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
      reason: "not-a-forwarder",
    });
  });

  test("an endpoint of another service is no forwarder, whatever its name", async () => {
    const { registries, local: locals } = build();
    await registries.endpoints.register(record("a", "unix:///run/a.sock"), local());
    expect(locals.hopTo("a", "forwarder")).toBeUndefined();
    expect(locals.hopTo("a", "service")).toBeDefined();
  });

  test("a forwarder of another node cannot register here", async () => {
    const { registries } = build();
    const far = await makePeer("/forwarder/n");
    const wish = record("g", "tcp://192.0.2.9:5001", "forwarder");
    await expect(registries.endpoints.register(wish, context(far))).rejects.toMatchObject({
      reason: "not-local",
    });
  });
});

describe("the end of an endpoint", () => {
  test("unregister of what we do not hold is passed on: the registry knows whose it is", async () => {
    const { upstream, registries, published } = build();
    const unregister = vi.spyOn(upstream.endpoints, "unregister");
    await upstream.endpoints.register(record("a", PUBLIC), context(undefined)); // before we were restarted
    const ctx = local();
    await registries.endpoints.unregister(record("a", "unix:///run/a.sock"), ctx);
    expect(await published()).toEqual([]);
    expect(unregister).toHaveBeenCalledExactlyOnceWith(
      expect.objectContaining({ name: "a", url: PUBLIC }),
      ctx,
    );
    await registries.endpoints.unregister(record("never", ""), ctx);
  });

  test("the death of its process takes it out of the registry", async () => {
    const { clock, registries, published, local: locals } = build();
    const sleeper = cleanup.use(await startSleeper());
    await registries.endpoints.register(
      record("a", "unix:///run/a.sock"),
      context(await makePeer("/nse/a", sleeper.pid)),
    );
    await clock.advance(1000);
    expect(await published()).toHaveLength(1);
    await sleeper.kill();
    await clock.advance(250);
    await vi.waitFor(async () => expect(await published()).toEqual([]));
    expect(locals.get("a")).toBeUndefined();
  });

  test("the death of its process does not take out the successor that registers at that moment", async () => {
    const { clock, registries, published, upstream } = build();
    const sleeper = cleanup.use(await startSleeper());
    const old = context(await makePeer("/nse/a", sleeper.pid));
    await registries.endpoints.register(record("a", "unix:///run/a.sock"), old);
    const register = upstream.endpoints.register.bind(upstream.endpoints);
    const gate = Promise.withResolvers<void>();
    upstream.endpoints.register = async (entry, ctx) => {
      const stored = await register(entry, ctx);
      await gate.promise;
      return stored;
    };
    const again = registries.endpoints.register(record("a", "unix:///run/a.sock"), local());
    await sleeper.kill();
    await clock.advance(1000);
    gate.resolve();
    await again;
    expect(await published()).toHaveLength(1);
  });

  test("an endpoint that does not renew leaves by itself", async () => {
    const { clock, registries, published, local: locals } = build();
    await registries.endpoints.register(record("a", "unix:///run/a.sock"), local());
    await clock.advance(61_000);
    expect(locals.get("a")).toBeUndefined();
    expect(await published()).toEqual([]);
  });

  test("who asks to stay while the registry is away is kept here, and nobody in its name", async () => {
    const { clock, registries, published, local: locals, upstream } = build();
    const ask = (peer: Peer, url = "unix:///run/f.sock") =>
      registries.endpoints.register(record("f", url, "forwarder"), context(peer));
    await ask(forwarder);
    const away = new NsmError("UNAVAILABLE", "unreachable", "cannot reach tcp://192.0.2.1:5002");
    const register = vi.spyOn(upstream.endpoints, "register").mockRejectedValue(away);
    for (let renewal = 0; renewal < 4; renewal++) {
      await clock.advance(40_000);
      await expect(ask(forwarder)).rejects.toThrow(away);
    }
    expect(locals.published("forwarder")).toMatchObject([{ name: "f" }]);
    expect(await published()).toEqual([]);

    await clock.advance(40_000);
    await expect(ask(forwarder, "unix:///run/other.sock")).rejects.toThrow(away);
    await clock.advance(21_000);
    expect(locals.get("f")).toBeUndefined();

    register.mockRestore();
    await ask(forwarder);
    await clock.advance(40_000);
    const refused = new NsmError("PERMISSION_DENIED", "other-manager", "brought by another manager");
    vi.spyOn(upstream.endpoints, "register").mockRejectedValue(refused);
    await expect(ask(forwarder)).rejects.toThrow(refused);
    await clock.advance(21_000);
    expect(locals.get("f")).toBeUndefined();
  });
});
