import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { NetworkServiceEndpointSchema } from "../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import type { Registry } from "../sdk/registry/registry.ts";
import { findAll } from "../sdk/registry/registry.ts";
import { rememberEndpoints } from "./remote-endpoints.ts";

const HERE = "tcp://192.0.2.1:5004";
const [WEST, SOUTH] = ["tcp://203.0.113.1:5004", "tcp://203.0.113.9:5004"];

/** A proxy that finds these endpoints, each at its URL. */
async function find(endpoints: Readonly<Record<string, string>>) {
  const elsewhere: Registry<NetworkServiceEndpoint> = {
    register: (entry) => Promise.resolve(entry),
    unregister: () => Promise.resolve(),
    async *find() {
      for (const [name, url] of Object.entries(endpoints)) {
        await Promise.resolve();
        yield { entry: create(NetworkServiceEndpointSchema, { name, url }), deleted: false };
      }
    },
  };
  const { registry, remote } = rememberEndpoints(elsewhere, { here: HERE, elsewhere: () => HERE });
  const { signal } = new AbortController();
  const found = await findAll(registry, create(NetworkServiceEndpointSchema), signal);
  return { found, at: async (name: string) => await remote.find(name, signal), remote };
}

test("what is found bears this proxy's address, and the true one is known", async () => {
  const { found, at } = await find({ "a@west": WEST, "b@floating": HERE });
  expect(found.map(({ url }) => url)).toEqual([HERE, HERE]);
  expect(await at("a@west")).toBe(WEST);
  expect(await at("b@floating")).toBeUndefined();
});

test("a domain is spread when its endpoints are behind several proxies, of which this may be one", async () => {
  const { remote } = await find({
    "a@west": WEST,
    "b@west": WEST,
    "c@floating": WEST,
    "d@floating": SOUTH,
    "e@mixed": HERE,
    "f@mixed": WEST,
  });
  const domains = ["west", "floating", "mixed", "unknown"];
  expect(domains.map((domain) => remote.isSpread(domain))).toEqual([false, true, true, false]);
});
