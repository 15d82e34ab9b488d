import { create } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import { EMPTY_PATH } from "../sdk/registry-path.ts";
import { findAll } from "../sdk/registry/registry.ts";
import type { RegistryContext } from "../sdk/registry/registry.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { createMemoryRegistries } from "./memory.ts";

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
    expect(registries.ownersOfEndpoint("a")).toEqual(["spiffe://example.org/a"]);
    const stream = registries.endpoints.find({ entry: endpoint("a"), watch: true }, CONTEXT);
    const watch = stream[Symbol.asyncIterator]();
    await watch.next();
    const deleted = watch.next();
    await clock.advance(61_000);
    expect(await deleted).toMatchObject({ value: { deleted: true, entry: { name: "a" } } });
    expect(registries.ownersOfEndpoint("a")).toBeUndefined();
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

test("a network service without payload carries IP, and never expires", async () => {
  const { clock, registries } = build();
  const stored = await registries.services.register(create(NetworkServiceSchema, { name: "s" }), CONTEXT);
  expect(stored.payload).toBe("IP");
  await clock.advance(24 * 3_600_000);
  expect(
    await findAll(registries.services, create(NetworkServiceSchema, { name: "s" }), CONTEXT.signal),
  ).toHaveLength(1);
});
