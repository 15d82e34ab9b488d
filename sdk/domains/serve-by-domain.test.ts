import { create } from "@bufbuild/protobuf";
import { expect, onTestFinished, test } from "vitest";
import { NetworkServiceQuerySchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import { createMemoryRegistries } from "../../registry/memory.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { makePeer } from "../../test/support/peer.ts";
import type { Caller } from "../grpc/caller.ts";
import { EMPTY_PATH } from "../registry-path.ts";
import { createTokenMinter } from "../token.ts";
import { exportsOf } from "./exports.ts";
import { handlersByDomain, handlersOf } from "./serve-by-domain.ts";

const [ours, west, north] = [await makePeer("/nsmgr/one"), await makePeer("/west"), await makePeer("/north")];

async function build() {
  const clock = createFakeClock();
  const registries = createMemoryRegistries(clock);
  onTestFinished(() => registries[Symbol.dispose]());
  await registries.services.register(create(NetworkServiceSchema, { name: "web" }), {
    signal: new AbortController().signal,
    deadlineMs: undefined,
    peer: undefined,
    registration: { path: EMPTY_PATH },
  });
  const exported = [{ service: "web", domain: "*", acceptEndpoints: false }];
  const serve = { minter: createTokenMinter({ clock }), clock, ...registries };
  const asked: string[] = [];
  const { services } = handlersByDomain({
    peers: { domainOf: (id) => /\/(west|north)$/.exec(id)?.[1] },
    exports: exportsOf(
      () => exported,
      () => ({ [Symbol.dispose]: () => undefined }),
    ),
    homeFor(domain) {
      asked.push(domain);
      return registries;
    },
    own: handlersOf(registries, { ...serve, mayRelay: () => false }),
    serve,
  });
  const watch = (peer: Caller["peer"]) => {
    const stop = new AbortController();
    const caller: Caller = {
      peer,
      metadata: { get: () => [] },
      signal: stop.signal,
      deadlineMs: undefined,
      sendHeader: () => undefined,
    };
    const stream = services.find(create(NetworkServiceQuerySchema, { watch: true }), caller);
    const iterator = stream[Symbol.asyncIterator]();
    const end = async () => {
      stop.abort();
      return await iterator.next();
    };
    return { first: iterator.next().then(({ value }) => value?.networkService?.name), end };
  };
  return { watch, asked };
}

test("a domain that opens watches without end is refused, nobody else is, and each has a registry of its own", async () => {
  const { watch, asked } = await build();
  const opened = Array.from({ length: 2000 }, () => watch(west));
  expect(new Set(await Promise.all(opened.map(({ first }) => first)))).toEqual(new Set(["web"]));
  await expect(watch(west).first).rejects.toMatchObject({ reason: "too-many-watches" });
  expect(await watch(north).first).toBe("web");
  expect(await watch(ours).first).toBe("web");
  await opened[0]?.end();
  expect(await watch(west).first).toBe("web");
  expect(asked).toEqual(["west", "north"]);
});
