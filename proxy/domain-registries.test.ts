import { create } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { expect, onTestFinished, test } from "vitest";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import { createMemoryRegistries } from "../registry/memory.ts";
import { delay } from "../sdk/clock.ts";
import type { DomainResolver } from "../sdk/domains/resolver.ts";
import { NsmError } from "../sdk/errors.ts";
import { silentLogger as log } from "../sdk/log.ts";
import { EMPTY_PATH } from "../sdk/registry-path.ts";
import { findAll } from "../sdk/registry/registry.ts";
import type { Registries } from "../sdk/registry/registry.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { createDomainRegistries } from "./domain-registries.ts";

const NEVER = new AbortController().signal;
const LOCAL = { signal: NEVER, deadlineMs: undefined, peer: undefined, registration: { path: EMPTY_PATH } };

/** `west` and `link` answer, `hangs` never does, `lost` is not found in time, and nobody knows any other. */
async function build() {
  const clock = createFakeClock();
  const west = createMemoryRegistries(createFakeClock());
  onTestFinished(() => west[Symbol.dispose]());
  await west.services.register(create(NetworkServiceSchema, { name: "web" }), LOCAL);
  await west.services.register(create(NetworkServiceSchema, { name: "db" }), LOCAL);
  for (const [name, url] of [
    ["nse", ""],
    ["far", "tcp://203.0.113.9:5004"],
  ] as const)
    await west.endpoints.register(
      create(NetworkServiceEndpointSchema, { name, networkServiceNames: ["web"], url }),
      LOCAL,
    );
  const never = async function* never(_: unknown, { signal }: { readonly signal: AbortSignal }) {
    await delay(1e9, signal);
    yield* [];
  };
  const hanging: Registries = {
    services: { ...west.services, find: never },
    endpoints: { ...west.endpoints, find: never },
  };
  const resolver: DomainResolver = {
    async registryOf(domain, signal) {
      if (domain === "lost") await delay(1e9, signal);
      if (["west", "link", "hangs", "floating"].includes(domain)) return domain;
      throw new NsmError("NOT_FOUND", "domain-not-found", `no domain ${domain}`);
    },
    proxyOf: (domain) =>
      Promise.resolve(
        domain === "floating" ? undefined : domain === "link" ? "link://link" : "tcp://192.0.2.1:5004",
      ),
  };
  const opened: string[] = [];
  const registries = createDomainRegistries({
    resolver,
    open(url, domain) {
      opened.push(domain);
      return url === "hangs" ? hanging : west;
    },
    domains: () => ["west", "hangs", "lost", "nowhere"],
    clock,
    log,
  });
  const urlsIn = async (domain: string) => {
    const query = create(NetworkServiceEndpointSchema, { networkServiceNames: [`web@${domain}`] });
    const found = await findAll(registries.endpoints, query, NEVER);
    return Object.fromEntries(found.map(({ name, url }) => [name, url]));
  };
  return { clock, registries, urlsIn, opened };
}

test("the proxy of a domain answers for its endpoints; a linked one says it of those that others have registered there", async () => {
  const { urlsIn } = await build();
  expect(await urlsIn("west")).toEqual({
    "nse@west": "tcp://192.0.2.1:5004",
    "far@west": "tcp://192.0.2.1:5004",
  });
  expect(await urlsIn("link")).toEqual({ "nse@link": "link://link", "far@link": "tcp://203.0.113.9:5004" });
  expect(await urlsIn("floating")).toMatchObject({ "far@floating": "tcp://203.0.113.9:5004" });
});

test("endpoints live by the clock here, however late it is there", async () => {
  const { clock, registries } = await build();
  const query = create(NetworkServiceEndpointSchema, { name: "nse@west" });
  await clock.advance(3600_000); // the registry's own stands still
  const [found] = await findAll(registries.endpoints, query, NEVER);
  expect(found?.expirationTime && timestampMs(found.expirationTime)).toBe(clock.now() + 60_000);
});

test.for(["hangs", "lost"])("a domain that %s costs less than two seconds", async (domain) => {
  const { clock, registries } = await build();
  const query = create(NetworkServiceSchema, { name: `web@${domain}` });
  const outcome = findAll(registries.services, query, NEVER).catch((error: unknown) => error);
  await clock.advance(1999);
  expect(await outcome).toMatchObject({ code: "UNAVAILABLE", reason: "domain-silent" });
});

test("a watch that is silent is no silent domain", async () => {
  const { clock, registries } = await build();
  const stop = new AbortController();
  const entry = create(NetworkServiceSchema, { name: "none@west" });
  const told: string[] = [];
  const watching = (async () => {
    for await (const found of registries.services.find({ entry, watch: true }, { signal: stop.signal }))
      told.push(found.entry.name);
    return "ended";
  })();
  await clock.advance(10_000);
  stop.abort();
  expect(await watching).toBe("ended");
  expect(told).toEqual([]);
});

test("the services of all domains are those of who answers, and for the others the reason", async () => {
  const { clock, registries } = await build();
  const all = findAll(registries.services, create(NetworkServiceSchema, { name: "@*" }), NEVER);
  await clock.advance(1999);
  const found = (await all).map(({ name, payload }) => [name, payload]);
  expect(found).toEqual([
    ["web@west", "IP"],
    ["db@west", "IP"],
    ["@hangs", expect.stringContaining("did not answer within")],
    ["@lost", expect.stringContaining("did not answer within")],
    ["@nowhere", "no domain nowhere"],
  ]);
});

test("64 domains that hang keep nobody from another one", async () => {
  const { clock, registries, urlsIn } = await build();
  const query = create(NetworkServiceSchema, { name: "web@hangs" });
  const hanging = Array.from({ length: 64 }, () =>
    findAll(registries.services, query, NEVER).catch((error: unknown) => error),
  );
  expect(Object.keys(await urlsIn("west"))).toHaveLength(2);
  await clock.advance(1999);
  for (const each of await Promise.all(hanging)) expect(each).toMatchObject({ reason: "domain-silent" });
});
