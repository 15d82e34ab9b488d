import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionSchema, MonitorScopeSelectorSchema } from "../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import {
  Limits,
  checkConnectionLimits,
  checkEndpointLimits,
  checkMetadataLimits,
  checkRequestLimits,
  checkSelectorLimits,
  checkServiceLimits,
} from "./limits.ts";

const times = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value);
const text = (bytes: number) => "x".repeat(bytes);
const map = (entries: number) => Object.fromEntries(times(entries, "v").map((v, i) => [`k${i}`, v]));
const refusal = (message: string) =>
  expect.objectContaining({ code: "INVALID_ARGUMENT", reason: "limit", message });

type ConnectionInit = MessageInitShape<typeof ConnectionSchema>;
type IpInit = NonNullable<NonNullable<ConnectionInit["context"]>["ipContext"]>;
const ip = (ipContext: IpInit): ConnectionInit => ({ context: { ipContext } });

/** Field, what is as large as allowed, what is one too large, and both sizes. */
const CONNECTIONS: readonly (readonly [string, ConnectionInit, ConnectionInit, string])[] = [
  ["connection.id", { id: text(64) }, { id: text(65) }, "65 bytes, the limit is 64"],
  ["connection.id", { id: text(64) }, { id: "é".repeat(33) }, "66 bytes, the limit is 64"],
  [
    "connection.network_service",
    { networkService: text(507) },
    { networkService: text(508) },
    "508 bytes, the limit is 507",
  ],
  ["connection.payload", { payload: text(63) }, { payload: text(64) }, "64 bytes, the limit is 63"],
  ["connection.labels", { labels: map(32) }, { labels: map(33) }, "33 entries, the limit is 32"],
  [
    "connection.labels key",
    { labels: { [text(63)]: "" } },
    { labels: { [text(64)]: "" } },
    "64 bytes, the limit is 63",
  ],
  [
    "connection.labels value",
    { labels: { a: text(253) } },
    { labels: { a: text(254) } },
    "254 bytes, the limit is 253",
  ],
  [
    "connection.mechanism.parameters value",
    { mechanism: { parameters: { a: text(4096) } } },
    { mechanism: { parameters: { a: text(4097) } } },
    "4097 bytes, the limit is 4096",
  ],
  [
    "connection.path.path_segments",
    { path: { pathSegments: times(64, {}) } },
    { path: { pathSegments: times(65, {}) } },
    "65 entries, the limit is 64",
  ],
  [
    "connection.path.path_segments.name",
    { path: { pathSegments: [{ name: text(253) }] } },
    { path: { pathSegments: [{}, { name: text(254) }] } },
    "254 bytes, the limit is 253",
  ],
  [
    "connection.path.path_segments.token",
    { path: { pathSegments: [{ token: text(4096) }] } },
    { path: { pathSegments: [{ token: text(4097) }] } },
    "4097 bytes, the limit is 4096",
  ],
  [
    "connection.context.extra_context",
    { context: { extraContext: map(32) } },
    { context: { extraContext: map(33) } },
    "33 entries, the limit is 32",
  ],
  [
    "connection.context.ip_context.src_ip_addrs",
    ip({ srcIpAddrs: times(16, "10.0.0.1/32") }),
    ip({ srcIpAddrs: times(17, "10.0.0.1/32") }),
    "17 entries, the limit is 16",
  ],
  [
    "connection.context.ip_context.dst_routes",
    ip({ dstRoutes: times(64, {}) }),
    ip({ dstRoutes: times(65, {}) }),
    "65 entries, the limit is 64",
  ],
  [
    "connection.context.ip_context.src_routes",
    ip({ srcRoutes: [{ prefix: text(64) }] }),
    ip({ srcRoutes: [{ nextHop: text(65) }] }),
    "65 bytes, the limit is 64",
  ],
  [
    "connection.context.ip_context.excluded_prefixes",
    ip({ excludedPrefixes: times(256, "::/0") }),
    ip({ excludedPrefixes: times(257, "::/0") }),
    "257 entries, the limit is 256",
  ],
  [
    "connection.context.ip_context.ip_neighbors",
    ip({ ipNeighbors: times(32, {}) }),
    ip({ ipNeighbors: times(33, {}) }),
    "33 entries, the limit is 32",
  ],
  [
    "connection.context.ip_context.policies.routes",
    ip({ policies: times(16, { routes: times(64, {}) }) }),
    ip({ policies: [{ routes: times(65, {}) }] }),
    "65 entries, the limit is 64",
  ],
  [
    "connection.context.dns_context.configs.dns_server_ips",
    { context: { dnsContext: { configs: times(2, { dnsServerIps: times(4, "1.1.1.1") }) } } },
    { context: { dnsContext: { configs: times(3, { dnsServerIps: times(3, "1.1.1.1") }) } } },
    "9 entries, the limit is 8",
  ],
];

test.each(CONNECTIONS)("%s: the largest passes, one more is refused", (field, largest, tooLarge, sizes) => {
  checkConnectionLimits(create(ConnectionSchema, largest));
  const connection = create(ConnectionSchema, tooLarge);
  expect(() => checkConnectionLimits(connection)).toThrow(refusal(`${field}: ${sizes}`));
  const request = create(NetworkServiceRequestSchema, { connection });
  expect(() => checkRequestLimits(request)).toThrow(refusal(`${field}: ${sizes}`));
});

test("mechanism preferences", () => {
  const request = (count: number) =>
    create(NetworkServiceRequestSchema, {
      mechanismPreferences: times(count, { cls: "LOCAL", type: "KERNEL" }),
    });
  checkRequestLimits(request(Limits.mechanisms));
  expect(() => checkRequestLimits(request(17))).toThrow(
    refusal("mechanism_preferences: 17 entries, the limit is 16"),
  );
});

test("endpoints", () => {
  const names = times(16, "svc");
  checkEndpointLimits(create(NetworkServiceEndpointSchema, { networkServiceNames: names, url: text(256) }));
  const check = (init: MessageInitShape<typeof NetworkServiceEndpointSchema>) => () =>
    checkEndpointLimits(create(NetworkServiceEndpointSchema, init));
  expect(check({ networkServiceNames: [...names, "svc"] })).toThrow(
    refusal("network_service_names: 17 entries, the limit is 16"),
  );
  expect(check({ url: text(257) })).toThrow(refusal("url: 257 bytes, the limit is 256"));
  expect(check({ networkServiceLabels: { svc: { labels: map(33) } } })).toThrow(
    refusal("network_service_labels: 33 entries, the limit is 32"),
  );
  expect(check({ pathIds: times(17, "") })).toThrow(refusal("path_ids: 17 entries, the limit is 16"));
});

test("services and selectors", () => {
  expect(() => checkServiceLimits(create(NetworkServiceSchema, { matches: times(65, {}) }))).toThrow(
    refusal("matches: 65 entries, the limit is 64"),
  );
  const deep = create(NetworkServiceSchema, { matches: [{ routes: [{ destinationSelector: map(33) }] }] });
  expect(() => checkServiceLimits(deep)).toThrow(
    refusal("matches.routes.destination_selector: 33 entries, the limit is 32"),
  );
  const selector = create(MonitorScopeSelectorSchema, { pathSegments: times(65, {}) });
  expect(() => checkSelectorLimits(selector)).toThrow(refusal("path_segments: 65 entries, the limit is 64"));
});

test("metadata", () => {
  const path = (segments: number) =>
    JSON.stringify({ Index: 0, PathSegments: times(segments, { token: "t" }) });
  checkMetadataLimits([
    ["nsm-client-token", ["t"]],
    ["path", [path(8)]],
    ["other-bin", [Buffer.alloc(32_000)]],
  ]);
  expect(() => checkMetadataLimits([["nsm-client-token", ["t", "t"]]])).toThrow(
    refusal("metadata nsm-client-token: 2 entries, the limit is 1"),
  );
  expect(() => checkMetadataLimits([["path", [path(9)]]])).toThrow(
    refusal("metadata path: 9 entries, the limit is 8"),
  );
  expect(() => checkMetadataLimits([["a", times(65, "")]])).toThrow(
    refusal("metadata: 65 entries, the limit is 64"),
  );
  expect(() => checkMetadataLimits([["a", [text(32 * 1024)]]])).toThrow(
    refusal("metadata: 32769 bytes, the limit is 32768"),
  );
});
