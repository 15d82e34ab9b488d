import { expect, test } from "vitest";
import { systemClock } from "../sdk/clock.ts";
import { findAll } from "../sdk/registry/registry.ts";
import { create } from "@bufbuild/protobuf";
import { NetworkServiceSchema } from "../api/gen/registry_pb.js";
import { createMemoryRegistries } from "./memory.ts";
import { parseNetworkServices, putServices } from "./services-file.ts";

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

test.for([
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
    const found = await findAll(registries.services, create(NetworkServiceSchema), AbortSignal.timeout(1000));
    return found.map(({ name, pathIds }) => `${name} of ${pathIds.join()}`);
  };
  const both = parseNetworkServices(CHAIN);
  await putServices(registries, "spiffe://a/registry", both, []);
  expect(await names()).toEqual(["chain of spiffe://a/registry", "plain of spiffe://a/registry"]);
  await putServices(registries, "spiffe://a/registry", both.slice(1), both);
  expect(await names()).toEqual(["plain of spiffe://a/registry"]);
});
