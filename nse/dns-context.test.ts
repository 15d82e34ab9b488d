import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionContextSchema } from "../api/gen/connectioncontext_pb.js";
import { callBy, createRecorder, requestOn } from "../test/support/chain.ts";
import { makePeer } from "../test/support/peer.ts";
import { dnsContext, parseDnsOffers } from "./dns-context.ts";

const PEER = await makePeer("/a");

test("NSM_DNS_CONFIGS is read as the Go endpoint reads it", () => {
  expect(parseDnsOffers("[]")).toEqual([]);
  expect(parseDnsOffers("null")).toEqual([]);
  expect(
    parseDnsOffers(
      '[{"dns_server_ips":["10.0.0.1","2001:db8::1"],"search_domains":["my.domain"]},{"dns_server_ips":["10.0.0.2"]}]',
    ),
  ).toEqual([
    { servers: ["10.0.0.1", "2001:db8::1"], domains: ["my.domain"] },
    { servers: ["10.0.0.2"], domains: [] },
  ]);
});

test.each([
  ["10.0.0.1", /expected JSON/],
  ['{"dns_server_ips":["10.0.0.1"]}', /expected JSON/],
  ['[{"dns_server_ips":[]}]', /dns_server_ips/],
  ['[{"dns_server_ips":["10.0.0.1"],"search":[]}]', /search/],
  ['[{"dns_server_ips":["ns.example"]}]', /"ns.example" is no address/],
  ['[{"dns_server_ips":["10.0.0.1"],"search_domains":["a..b"]}]', /"a..b" is no name/],
  [
    JSON.stringify([{ dns_server_ips: Array.from({ length: 9 }, (_, i) => `10.0.0.${i}`) }]),
    /more than 32 configurations, 8 servers/,
  ],
])("%s is refused", (text, message) => {
  const refused = { code: "INVALID_ARGUMENT", reason: "bad-dns-configs" };
  expect(() => parseDnsOffers(text)).toThrow(
    expect.objectContaining({ ...refused, message: expect.stringMatching(message) }),
  );
});

test("a connection gets each configuration once, whatever the order of its servers", async () => {
  const offers = [
    { servers: ["10.0.0.1", "10.0.0.2"], domains: ["a", "b"] },
    { servers: ["10.0.0.3"], domains: [] },
  ];
  const request = requestOn(["client", "me"]);
  if (request.connection !== undefined)
    request.connection.context = create(ConnectionContextSchema, {
      dnsContext: { configs: [{ dnsServerIps: ["10.0.0.2", "10.0.0.1"], searchDomains: ["b", "a"] }] },
    });
  const service = dnsContext(offers)(createRecorder());
  const answer = await service.request(request, callBy(PEER));
  const configs = answer.context?.dnsContext?.configs ?? [];
  expect(configs.map(({ dnsServerIps, searchDomains }) => [dnsServerIps, searchDomains])).toEqual([
    [
      ["10.0.0.2", "10.0.0.1"],
      ["b", "a"],
    ],
    [["10.0.0.3"], []],
  ]);
});
