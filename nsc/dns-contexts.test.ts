import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionSchema } from "../api/gen/connection_pb.js";
import { acceptDnsContext } from "./dns-contexts.ts";

function offer(dnsServerIps: string[], searchDomains: string[] = [], srcIpAddrs: string[] = []) {
  const context = { ipContext: { srcIpAddrs }, dnsContext: { configs: [{ dnsServerIps, searchDomains }] } };
  return acceptDnsContext(create(ConnectionSchema, { context }), ["cluster.local"]);
}

test("servers and domains are taken in their canonical form, each once", () => {
  expect(offer(["172.16.1.2", "2001:DB8::0001", "172.16.1.2"], ["My.Service.", "my.service", "x"])).toEqual({
    groups: [{ servers: ["172.16.1.2", "2001:db8::1"], domains: ["my.service", "x"], isOwn: false }],
    refused: [],
  });
});

test.each([
  ["127.0.0.53", "is a loopback address"],
  ["::1", "is a loopback address"],
  ["::ffff:127.0.0.1", "is a loopback address"],
  ["0.0.0.0", "is unspecified"],
  ["::", "is unspecified"],
  ["224.0.0.251", "is no address of one host"],
  ["255.255.255.255", "is no address of one host"],
  ["ff02::fb", "is no address of one host"],
  ["fe80::1", "is link-local"],
  ["172.16.1.1", "is the client itself"],
  ["ns.example", "is no address"],
  ["10.0.0.1:53", "is no address"],
  ["", "is no address"],
])("the server %s %s", (server, reason) => {
  expect(offer([server], [], ["172.16.1.1/32"])).toEqual({
    groups: [],
    refused: [`server ${JSON.stringify(server)} ${reason}`],
  });
  expect(offer([server, "169.254.0.1"], [], ["172.16.1.1/32"]).groups).toHaveLength(1); // of the endpoints' usual pool
});

test("domains of the pod that its owner accepts of wires are theirs, and no others", () => {
  const configs = [{ dnsServerIps: ["172.16.1.2"], searchDomains: ["a.lab.cluster.local", "cluster.local"] }];
  const connection = create(ConnectionSchema, { context: { dnsContext: { configs } } });
  expect(acceptDnsContext(connection, ["cluster.local"], ["lab.cluster.local"])).toEqual({
    groups: [{ servers: ["172.16.1.2"], domains: ["a.lab.cluster.local"], isOwn: false, isAccepted: true }],
    refused: ['domain "cluster.local" is the pod\'s own'],
  });
});

test.each([
  ["cluster.local", "is the pod's own"],
  ["svc.cluster.local", "is the pod's own"],
  ["a b", "is no name"],
  [".", "is no name"],
  [`${"a".repeat(64)}.b`, "is no name"],
])("the domain %j %s, and without another the servers are not for all names instead", (domain, reason) => {
  expect(offer(["172.16.1.2"], [domain])).toEqual({
    groups: [],
    refused: [`domain ${JSON.stringify(domain)} ${reason}`],
  });
  expect(offer(["172.16.1.2"], [domain, "my.service"]).groups[0]?.domains).toEqual(["my.service"]);
});
