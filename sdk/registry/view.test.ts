import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { describe, expect, test, vi } from "vitest";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import { createMemoryRegistries } from "../../registry/memory.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { silentLogger } from "../log.ts";
import { EMPTY_PATH } from "../registry-path.ts";
import type { Registry, RegistryContext } from "./registry.ts";
import { createRegistryView } from "./view.ts";
import type { RegistryView } from "./view.ts";

const CONTEXT: RegistryContext = {
  signal: new AbortController().signal,
  deadlineMs: undefined,
  peer: undefined,
  registration: { path: EMPTY_PATH },
};

interface Hooks {
  /** Before a watch reaches the registry. */
  readonly beforeWatch?: () => Promise<void>;
  /** When a list has been made, and is on its way back. */
  readonly afterList?: () => Promise<void>;
}

/** A registry that counts its Finds and can be away. */
function build(hooks: Hooks = {}) {
  const clock = createFakeClock();
  const memory = createMemoryRegistries(clock);
  let finds = 0;
  let watching = 0;
  let away: AbortController | undefined;
  const counted = <T>(registry: Registry<T>): Registry<T> => ({
    ...registry,
    async *find(query, { signal }) {
      if (away?.signal.aborted === true) throw new Error("away");
      finds++;
      const breaks = (away ??= new AbortController()).signal;
      const until = { signal: AbortSignal.any([signal, breaks]) };
      if (!query.watch) {
        const list = await Array.fromAsync(registry.find(query, until));
        await hooks.afterList?.();
        yield* list;
        return;
      }
      watching++;
      try {
        await hooks.beforeWatch?.();
        yield* registry.find(query, until);
        if (breaks.aborted) throw new Error("away");
      } finally {
        watching--;
      }
    },
  });
  const registries = { services: counted(memory.services), endpoints: counted(memory.endpoints) };
  const view = createRegistryView(registries, clock, silentLogger);
  const register = (name: string, expirationTime?: Timestamp, service = "service") =>
    memory.endpoints.register(
      create(NetworkServiceEndpointSchema, {
        name,
        networkServiceNames: [service],
        url: "tcp://a:1",
        ...(expirationTime && { expirationTime }),
      }),
      CONTEXT,
    );
  const unregister = (name: string) =>
    memory.endpoints.unregister(create(NetworkServiceEndpointSchema, { name }), CONTEXT);
  const names = async (service = "service") =>
    (await view.endpointsOf(service, CONTEXT.signal)).map(({ name }) => name);
  return {
    clock,
    memory,
    view,
    register,
    unregister,
    names,
    finds: () => finds,
    watching: () => watching,
    leave: () => away?.abort(),
    comeBack: () => (away = undefined),
  };
}

test("the second look-up asks nobody", async () => {
  const { register, names, finds, view } = build();
  await register("a");
  expect(await names()).toEqual(["a"]);
  await vi.waitFor(() => expect(finds()).toBe(3)); // one list, one watch and the list that it is compared with
  expect(await names()).toEqual(["a"]);
  expect(finds()).toBe(3);
  view[Symbol.dispose]();
});

test("what ran out while the registry was away is asked for when it is back, before the watch is open again", async () => {
  const { clock, register, names, view, leave, comeBack } = build();
  const inMs = (ms: number) => timestampFromMs(clock.now() + ms);
  await register("a", inMs(1000));
  expect(await names()).toEqual(["a"]);
  leave();
  await clock.advance(1000);
  await register("a", inMs(1000));
  comeBack();
  expect(await names()).toEqual(["a"]);
  view[Symbol.dispose]();
});

test("an endpoint of a service that is followed is found by its name without asking anybody", async () => {
  const { register, view, names, finds } = build();
  await register("a");
  await names();
  await vi.waitFor(() => expect(finds()).toBe(3));
  expect((await view.endpoint("a", "service", CONTEXT.signal))?.name).toBe("a");
  expect(finds()).toBe(3);
  view[Symbol.dispose]();
});

test("an endpoint that was found by its name is followed", async () => {
  const { register, unregister, view, finds } = build();
  await register("a");
  const named = async (name: string) => (await view.endpoint(name, "service", CONTEXT.signal))?.name;
  expect(await named("a")).toBe("a");
  await vi.waitFor(() => expect(finds()).toBe(3));
  expect(await named("a")).toBe("a");
  expect(finds()).toBe(3);
  await unregister("a");
  await vi.waitFor(async () => expect(await named("a")).toBeUndefined());
  expect(await named("b")).toBeUndefined();
  view[Symbol.dispose]();
});

test("an endpoint that the watch of its service does not tell of is asked for by name", async () => {
  const { register, view, names } = build();
  await register("a");
  await register("b", undefined, "other");
  await names();
  expect((await view.endpoint("b", "service", CONTEXT.signal))?.name).toBe("b");
  view[Symbol.dispose]();
});

describe("a service that is followed", () => {
  const service = (payload = "IP") => create(NetworkServiceSchema, { name: "service", payload });
  const follow = (view: RegistryView) => {
    let changes = 0;
    const followed = view.follow("service", () => void changes++);
    const known = () => {
      const now = followed.known();
      return now && [now.service?.payload, ...now.endpoints.map(({ name }) => name)];
    };
    return { known, changes: () => changes, [Symbol.dispose]: () => followed[Symbol.dispose]() };
  };

  test("is known without asking, and changes are told", async () => {
    const { memory, register, unregister, view } = build();
    await memory.services.register(service(), CONTEXT);
    await register("a");
    using followed = follow(view);
    await vi.waitFor(() => expect(followed.known()).toEqual(["IP", "a"]));
    const before = followed.changes();
    await register("b");
    await vi.waitFor(() => expect(followed.known()).toEqual(["IP", "a", "b"]));
    await memory.services.register(service("ETHERNET"), CONTEXT);
    await unregister("a");
    await vi.waitFor(() => expect(followed.known()).toEqual(["ETHERNET", "b"]));
    expect(followed.changes()).toBe(before + 3);
    view[Symbol.dispose]();
  });

  test("that is only registered again has not changed", async () => {
    const { clock, memory, register, view } = build();
    await memory.services.register(service(), CONTEXT);
    await register("a");
    using followed = follow(view);
    await vi.waitFor(() => expect(followed.known()).toEqual(["IP", "a"]));
    const before = followed.changes();
    await clock.advance(1000);
    await memory.services.register(service(), CONTEXT);
    await register("a");
    await register("b");
    await vi.waitFor(() => expect(followed.known()).toEqual(["IP", "a", "b"]));
    expect(followed.changes()).toBe(before + 1);
    view[Symbol.dispose]();
  });

  test("is not known before the registry has told, and then what is not there is known, too", async () => {
    const opening = Promise.withResolvers<void>();
    const { view } = build({ afterList: () => opening.promise });
    using followed = follow(view);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(followed.known()).toBeUndefined();
    opening.resolve();
    await vi.waitFor(() => expect(followed.known()).toEqual([undefined]), { timeout: 5000 });
    view[Symbol.dispose]();
  });

  test("is watched for as long as it is followed, and ten minutes more", async () => {
    const { clock, register, view, watching } = build();
    await register("a");
    const followed = follow(view);
    await vi.waitFor(() => expect(watching()).toBe(2));
    await clock.advance(60 * 60_000);
    expect(watching()).toBe(2);
    followed[Symbol.dispose]();
    await clock.advance(12 * 60_000);
    await vi.waitFor(() => expect(watching()).toBe(0));
    view[Symbol.dispose]();
  });
});

test("a service that the registry does not have is watched no longer than it is followed", async () => {
  const { view, watching } = build();
  const followed = view.follow("nonsense", () => undefined);
  await vi.waitFor(() => expect(watching()).toBe(2));
  followed[Symbol.dispose]();
  await vi.waitFor(() => expect(watching()).toBe(0));
  view[Symbol.dispose]();
});

test("changes arrive by the watch", async () => {
  const { memory, register, names, view } = build();
  await register("a");
  await names();
  await register("b");
  await vi.waitFor(async () => expect(await names()).toEqual(["a", "b"]));
  await memory.endpoints.unregister(create(NetworkServiceEndpointSchema, { name: "a" }), CONTEXT);
  await vi.waitFor(async () => expect(await names()).toEqual(["b"]));
  view[Symbol.dispose]();
});

test("what was registered a moment ago is found although the watch has not told yet", async () => {
  const { register, names, view } = build();
  expect(await names()).toEqual([]);
  await register("a");
  expect(await names()).toEqual(["a"]);
  view[Symbol.dispose]();
});

test("an endpoint past its expiry is not offered", async () => {
  const { clock, register, names, view } = build();
  await register("a", timestampFromMs(clock.now() + 1000));
  expect(await names()).toEqual(["a"]);
  await clock.advance(1000);
  expect(await names()).toEqual([]);
  view[Symbol.dispose]();
});

test("while the registry is away the last known state holds, and it is listed anew afterwards", async () => {
  const { memory, register, names, view, leave, comeBack, finds } = build();
  await register("a");
  await names();
  await vi.waitFor(() => expect(finds()).toBe(3));
  leave();
  await register("b");
  await memory.endpoints.unregister(create(NetworkServiceEndpointSchema, { name: "a" }), CONTEXT);
  expect(await names()).toEqual(["a"]);
  comeBack();
  await vi.waitFor(async () => expect(await names()).toEqual(["b"]), { timeout: 5000 });
  view[Symbol.dispose]();
});

test("a service is found by its exact name", async () => {
  const { memory, view } = build();
  await memory.services.register(create(NetworkServiceSchema, { name: "service" }), CONTEXT);
  expect((await view.service("service", CONTEXT.signal))?.name).toBe("service");
  expect(await view.service("serv", CONTEXT.signal)).toBeUndefined();
  view[Symbol.dispose]();
});

test("what the registry does not have is not watched", async () => {
  const { names, watching, view, register } = build();
  await Promise.all(Array.from({ length: 100 }, (_, i) => names(`nonsense-${i}`)));
  expect(watching()).toBe(0);
  await register("a");
  await Promise.all([names(), names()]);
  await vi.waitFor(() => expect(watching()).toBe(1));
  view[Symbol.dispose]();
  await vi.waitFor(() => expect(watching()).toBe(0));
});

test("a watch that nobody asks about ends by itself", async () => {
  const { clock, names, register, watching, view } = build();
  await register("a");
  await names();
  await vi.waitFor(() => expect(watching()).toBe(1));
  await clock.advance(9 * 60_000);
  expect(watching()).toBe(1);
  await clock.advance(2 * 60_000);
  await vi.waitFor(() => expect(watching()).toBe(0));
  view[Symbol.dispose]();
});

test("there are 256 watches at most: the one used least recently makes way, busy ones do not", async () => {
  const { clock, names, register, watching, finds, view } = build();
  for (let i = 0; i < 258; i++) await register(`${i}`, undefined, `s-${i}`);
  for (let i = 0; i < 257; i++) expect(await names(`s-${i}`)).toEqual([`${i}`]);
  await vi.waitFor(() => expect(watching()).toBe(256));
  await clock.advance(50_000);
  await names("s-0");
  await clock.advance(8_000); // not yet expired, a minute for all the others a little later
  for (let i = 0; i < 258; i++) await register(`${i}`, undefined, `s-${i}`);
  await clock.advance(2_000);
  expect(await names("s-257")).toEqual(["257"]);
  await vi.waitFor(() => expect(finds()).toBe(258 + 257 * 2)); // lists, watches and their comparisons
  expect(watching()).toBe(256);
  const before = finds();
  await names("s-0");
  expect(finds()).toBe(before);
  await names("s-1");
  expect(finds()).toBeGreaterThan(before);
  view[Symbol.dispose]();
});

test("what is deleted between list and watch is gone", async () => {
  let unregisterIt = (): Promise<void> => Promise.resolve();
  const { names, register, unregister, view } = build({ beforeWatch: () => unregisterIt() });
  await register("a");
  await register("b");
  unregisterIt = () => unregister("a");
  await names();
  await vi.waitFor(async () => expect(await names()).toEqual(["b"]));
  view[Symbol.dispose]();
});

test("what is deleted before the watch has opened is gone, although the watch then says nothing", async () => {
  const opening = Promise.withResolvers<void>();
  const { names, register, unregister, view, finds } = build({ beforeWatch: () => opening.promise });
  await register("a");
  await names();
  await vi.waitFor(() => expect(finds()).toBe(3), { timeout: 5000 }); // the watch is slow: a list, and "a" is in it
  await unregister("a");
  opening.resolve();
  await vi.waitFor(async () => expect(await names()).toEqual([]), { timeout: 5000 });
  view[Symbol.dispose]();
});

test("a list that is late does not bring back what the watch has deleted", async () => {
  let lists = 0;
  const late = Promise.withResolvers<void>();
  const afterList = async () => {
    if (++lists === 2) await late.promise;
  };
  const { names, register, unregister, view } = build({ afterList });
  await register("a");
  await register("b");
  await names();
  await vi.waitFor(() => expect(lists).toBe(2));
  await unregister("a");
  await vi.waitFor(async () => expect(await names()).toEqual(["b"]));
  late.resolve();
  await new Promise((resolve) => setImmediate(resolve));
  expect(await names()).toEqual(["b"]);
  view[Symbol.dispose]();
});
