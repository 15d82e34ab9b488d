import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { systemClock } from "../sdk/clock.ts";
import { createLogger } from "../sdk/log.ts";
import { findAll } from "../sdk/registry/registry.ts";
import { create } from "@bufbuild/protobuf";
import { NetworkServiceSchema } from "../api/gen/registry_pb.js";
import { createMemoryRegistries } from "./memory.ts";
import { keepServices, parseNetworkServices, putServices } from "./services-file.ts";

const CHAIN = `
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: { name: chain, namespace: nsm-system }
spec:
  payload: IP
  matches:
    - source_selector: { app: firewall }
      fallthrough: true
      routes: [{ destination_selector: { app: gateway }, weight: 3 }]
    - routes: [{ destination_selector: { app: firewall } }]
---
kind: NetworkService
metadata: { name: plain }
spec: { payload: ETHERNET }
`;

test("manifests as Kubernetes has them become network services", () => {
  const [chain, plain] = parseNetworkServices(CHAIN);
  expect(chain).toMatchObject({
    name: "chain",
    payload: "IP",
    matches: [
      {
        sourceSelector: { app: "firewall" },
        fallthrough: true,
        routes: [{ destinationSelector: { app: "gateway" }, weight: 3 }],
      },
      { sourceSelector: {}, routes: [{ destinationSelector: { app: "firewall" } }] },
    ],
  });
  expect(plain).toMatchObject({ name: "plain", payload: "ETHERNET", matches: [] });
});

test("a service says of which domains its endpoints are taken, too", () => {
  const text = "kind: NetworkService\nmetadata: { name: a }\nspec: { importFrom: [west, south.example] }";
  expect(parseNetworkServices(text)).toMatchObject([{ name: "a", importFrom: ["west", "south.example"] }]);
});

test("a service says which domains may use it, and register endpoints of it", () => {
  const text =
    "kind: NetworkService\nmetadata: { name: a }\nspec: { exportTo: [west, '*'], acceptEndpointsFrom: [north] }";
  expect(parseNetworkServices(text)).toMatchObject([
    { name: "a", exportTo: ["west", "*"], acceptEndpointsFrom: ["north"] },
  ]);
});

test.for([
  [
    "kind: NetworkService\nmetadata: { name: a }\nspec: { exportTo: ['a b'] }",
    /exportTo.*is no name of a domain, nor '\*'/,
  ],
  [
    "kind: NetworkService\nmetadata: { name: a }\nspec: { importFrom: [a@b] }",
    /importFrom.*is no name of a domain/,
  ],
  ["a: [", /line 1, column/],
  ["kind: Pod\nmetadata: { name: a }\n", /kind/],
  ["kind: NetworkService\nmetadata: { name: a }\nspec: { payload: IPX }", /line 3, column 18: spec.payload/],
  [
    "kind: NetworkService\nmetadata: { name: a }\nspec: { matches: [{ route: [] }] }",
    /line 3, column 21: spec.matches\[0\].route /,
  ],
  ["kind: NetworkService\nmetadata: { name: a }\n---\nkind: NetworkService\nmetadata: { name: a }", /twice/],
] as const)("a fault is told: %s", ([text, what]) => {
  expect(() => parseNetworkServices(text)).toThrow(what);
});

test("a service that leaves the file leaves the registry, and others stay theirs", async () => {
  using registries = createMemoryRegistries(systemClock);
  const names = async () => {
    const found = await findAll(
      registries.services,
      create(NetworkServiceSchema),
      AbortSignal.timeout(10_000),
    );
    return found.map(({ name, pathIds }) => `${name} of ${pathIds.join()}`);
  };
  const both = parseNetworkServices(CHAIN);
  await putServices(registries, "spiffe://a/registry", both, []);
  expect(await names()).toEqual(["chain of spiffe://a/registry", "plain of spiffe://a/registry"]);
  await putServices(registries, "spiffe://a/registry", both.slice(1), both);
  expect(await names()).toEqual(["plain of spiffe://a/registry"]);
});

test("changes of the file are registered one after the other, and one that fails does not end the registry", async () => {
  const path = join(mkdtempSync(join(tmpdir(), "services-")), "services.yaml");
  onTestFinished(() => rmSync(join(path, ".."), { recursive: true }));
  const write = (...names: string[]) =>
    writeFileSync(
      path,
      names.map((name) => `kind: NetworkService\nmetadata: { name: ${name} }\n`).join("---\n"),
    );
  using registries = createMemoryRegistries(systemClock);
  const { services } = registries;
  let running = 0;
  const calls: string[] = [];
  const alone = async (what: string, call: Promise<unknown>) => {
    calls.push(running === 0 ? what : `${what} beside another`);
    running++;
    await new Promise((resolve) => setImmediate(resolve));
    running--;
    if (what === "register wrong") throw new Error("refused");
    await call;
  };
  const spied: typeof services = {
    ...services,
    async register(service, ctx) {
      await alone(`register ${service.name}`, services.register(service, ctx));
      return service;
    },
    unregister: (service, ctx) => alone(`unregister ${service.name}`, services.unregister(service, ctx)),
  };
  const errors: string[] = [];
  const log = createLogger("test", "ERROR", { write: (line) => void errors.push(line) });
  write("one");
  await using kept = await keepServices(
    path,
    { services: spied },
    { spiffeId: "spiffe://a/r", clock: systemClock, log },
  );
  void kept;
  write("wrong", "two");
  await vi.waitFor(() => expect(errors).toHaveLength(1));
  write("three");
  await vi.waitFor(() => expect(calls.at(-1)).toBe("register three"));
  expect(errors[0]).toContain("refused");
  expect(calls).toEqual([
    "register one",
    "unregister one",
    "register wrong",
    // What may be there of both is known to be the file's.
    "unregister one",
    "unregister wrong",
    "unregister two",
    "register three",
  ]);
});
