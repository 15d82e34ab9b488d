import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { expect, test, vi } from "vitest";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import { createMemoryRegistries } from "../../registry/memory.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { silentLogger } from "../log.ts";
import { EMPTY_PATH } from "../registry-path.ts";
import type { Registry, RegistryContext } from "./registry.ts";
import { createRegistryView } from "./view.ts";

const CONTEXT: RegistryContext = {
  signal: new AbortController().signal,
  deadlineMs: undefined,
  peer: undefined,
  registration: { path: EMPTY_PATH },
};

/** A registry that counts its Finds and can be away. */
function build() {
  const clock = createFakeClock();
  const memory = createMemoryRegistries(clock);
  let finds = 0;
  let away: AbortController | undefined;
  const counted = <T>(registry: Registry<T>): Registry<T> => ({
    ...registry,
    async *find(query, { signal }) {
      if (away?.signal.aborted === true) throw new Error("away");
      finds++;
      const breaks = (away ??= new AbortController()).signal;
      yield* registry.find(query, { signal: AbortSignal.any([signal, breaks]) });
      if (breaks.aborted) throw new Error("away");
    },
  });
  const registries = { services: counted(memory.services), endpoints: counted(memory.endpoints) };
  const view = createRegistryView(registries, clock, silentLogger);
  const register = (name: string, expirationTime?: Timestamp) =>
    memory.endpoints.register(
      create(NetworkServiceEndpointSchema, {
        name,
        networkServiceNames: ["service"],
        url: "tcp://a:1",
        ...(expirationTime && { expirationTime }),
      }),
      CONTEXT,
    );
  const names = async () => (await view.endpointsOf("service", CONTEXT.signal)).map(({ name }) => name);
  return {
    clock,
    memory,
    view,
    register,
    names,
    finds: () => finds,
    leave: () => away?.abort(),
    comeBack: () => (away = undefined),
  };
}

test("the second look-up asks nobody", async () => {
  const { register, names, finds, view } = build();
  await register("a");
  expect(await names()).toEqual(["a"]);
  await vi.waitFor(() => expect(finds()).toBe(2)); // one list, one watch
  expect(await names()).toEqual(["a"]);
  expect(finds()).toBe(2);
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
  await vi.waitFor(() => expect(finds()).toBe(2));
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
