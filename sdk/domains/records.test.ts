import { create } from "@bufbuild/protobuf";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import { endpointKind, serviceKind } from "./records.ts";

const endpoint = create(NetworkServiceEndpointSchema, {
  name: "nse@west",
  networkServiceNames: ["a@west", "b@west"],
  networkServiceLabels: { "a@west": { labels: { app: "x" } } },
  url: "tcp://192.0.2.1:5001",
});

test("an endpoint loses its domain in its name, its services and their labels, and gets it back", () => {
  const stripped = endpointKind.strip(endpoint);
  expect(stripped).toMatchObject({
    name: "nse",
    networkServiceNames: ["a", "b"],
    networkServiceLabels: { a: { labels: { app: "x" } } },
    url: endpoint.url,
  });
  expect(endpointKind.join(stripped, "west")).toEqual(endpoint);
});

test("a query for a service alone is of the service's domain", () => {
  const query = create(NetworkServiceEndpointSchema, { networkServiceNames: ["here", "a@west@far"] });
  expect(endpointKind.domainOf(query)).toBe("west@far");
  expect(endpointKind.strip(query).name).toBe("");
  expect(endpointKind.join(endpointKind.strip(query), "west").name).toBe("");
});

test("a record without a domain is of this one", () => {
  expect(endpointKind.domainOf(create(NetworkServiceEndpointSchema, { name: "nse" }))).toBeUndefined();
  expect(serviceKind.domainOf(create(NetworkServiceSchema, { name: "service" }))).toBeUndefined();
});

test("what was stripped is joined to the same record again", () => {
  const name = fc.stringMatching(/^[a-z]{1,8}$/);
  fc.assert(
    fc.property(name, name, (service, domain) => {
      const entry = create(NetworkServiceSchema, { name: `${service}@${domain}`, payload: "IP" });
      expect(serviceKind.domainOf(entry)).toBe(domain);
      expect(serviceKind.join(serviceKind.strip(entry), domain)).toEqual(entry);
    }),
  );
});
