/** Addresses of connections through the endpoint's whole chain, with the pools that NSM_CIDR_PREFIX and NSM_IPAM_POLICY make. */
import { clone, create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { ConnectionSchema, State } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import { createMonitorStore } from "../sdk/elements/monitor.ts";
import type { NetworkService } from "../sdk/chain.ts";
import { createIpam, parsePrefixGroups } from "../sdk/ipam/group.ts";
import { silentLogger } from "../sdk/log.ts";
import { createTokenMinter } from "../sdk/token.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { callBy } from "../test/support/chain.ts";
import { makePeer } from "../test/support/peer.ts";
import { createEndpointChain } from "./chain.ts";
import { createIdle } from "./on-idle.ts";

const LEASE_ENDS_MS = Date.UTC(2031, 0, 1);
const PEER = await makePeer("/forwarder/node1");

function startEndpoint(prefixes: string, policy: "polite" | "strict" = "polite"): NetworkService {
  const clock = createFakeClock();
  return createEndpointChain({
    name: "nse",
    minter: createTokenMinter({ clock, maxLifetimeMs: 600_000 }),
    clock,
    store: createMonitorStore(),
    log: silentLogger,
    idle: createIdle({ timeoutMs: 0, clock, stop: () => undefined }),
    ipam: createIpam(parsePrefixGroups(prefixes), policy),
    dns: [],
    policies: () => [],
    netnsUrl: "inode://4/4026531840",
    interfaceName: (service) => `${service}-1`,
  });
}

/** One connection as a client keeps it: each request brings what the last answer gave, and what it excludes now. */
function createClient(id: string) {
  let connection: Connection = create(ConnectionSchema, {
    id,
    networkService: "service",
    context: { ipContext: {} },
    path: { pathSegments: [{ name: "forwarder", id, expires: timestampFromMs(LEASE_ENDS_MS) }] },
  });
  const addresses = () => {
    const { srcIpAddrs = [], dstIpAddrs = [] } = connection.context?.ipContext ?? {};
    return { src: srcIpAddrs, dst: dstIpAddrs };
  };
  return {
    addresses,
    async ask(endpoint: NetworkService, excluded: readonly string[] = []) {
      const asked = clone(ConnectionSchema, connection);
      if (asked.context?.ipContext !== undefined) asked.context.ipContext.excludedPrefixes = [...excluded];
      const request = create(NetworkServiceRequestSchema, {
        connection: asked,
        mechanismPreferences: [{ cls: "LOCAL", type: "KERNEL" }],
      });
      connection = await endpoint.request(request, callBy(PEER, { peer: undefined }));
      return addresses();
    },
    /** To another endpoint, or to the same anew, with the addresses of before. */
    reselect() {
      connection = clone(ConnectionSchema, connection);
      delete connection.mechanism;
      connection.state = State.RESELECT_REQUESTED;
    },
    async close(endpoint: NetworkService) {
      await endpoint.close(clone(ConnectionSchema, connection), callBy(PEER, { peer: undefined }));
    },
  };
}

test("two groups are dual stack: one pair of each family", async () => {
  const client = createClient("a");
  const answer = await client.ask(startEndpoint("172.16.1.100/31,2001:db8::/116"));
  expect(answer).toEqual({
    src: ["172.16.1.101/32", "2001:db8::1/128"],
    dst: ["172.16.1.100/32", "2001:db8::/128"],
  });
});

test("a list in brackets is one pool after the other", async () => {
  const endpoint = startEndpoint("[172.16.1.0/31,172.16.2.0/31],[2001:db8::/120]");
  const [a, b] = [createClient("a"), createClient("b")];
  expect((await a.ask(endpoint)).src).toEqual(["172.16.1.1/32", "2001:db8::1/128"]);
  expect((await b.ask(endpoint)).src).toEqual(["172.16.2.1/32", "2001:db8::3/128"]);
});

test("an empty pool is RESOURCE_EXHAUSTED with its name and a remedy, and serves again after a Close", async () => {
  const endpoint = startEndpoint("172.16.1.0/31,2001:db8::/120");
  const [a, b] = [createClient("a"), createClient("b")];
  await a.ask(endpoint);
  await expect(b.ask(endpoint)).rejects.toMatchObject({
    code: "RESOURCE_EXHAUSTED",
    reason: "ipam-exhausted",
    message: expect.stringMatching(/172\.16\.1\.0\/31.*larger prefix/),
  });
  expect(b.addresses()).toEqual({ src: [], dst: [] });
  await a.close(endpoint);
  expect((await b.ask(endpoint)).src).toEqual(["172.16.1.1/32", "2001:db8::1/128"]); // none of the IPv6 ones was lost
});

test("exclusions leave holes, and what becomes excluded is exchanged by the next refresh", async () => {
  const endpoint = startEndpoint("172.16.1.200/30");
  const client = createClient("a");
  const holes = ["172.16.1.201/32", "172.16.1.202/32"];
  expect(await client.ask(endpoint, holes)).toEqual({ src: ["172.16.1.203/32"], dst: ["172.16.1.200/32"] });
  expect(await client.ask(endpoint, ["172.16.1.200/32"])).toEqual({
    src: ["172.16.1.202/32"],
    dst: ["172.16.1.201/32"],
  });
  await expect(client.ask(endpoint, ["172.16.0.0/12"])).rejects.toMatchObject({ reason: "ipam-exhausted" });
  expect(client.addresses().src).toEqual(["172.16.1.202/32"]);
});

test("an endpoint that restarted finds the addresses that its clients bring, and gives them to nobody else", async () => {
  const prefixes = "172.16.1.0/29,2001:db8::/120";
  const before = startEndpoint(prefixes);
  const [a, b, c] = [createClient("a"), createClient("b"), createClient("c")];
  for (const client of [a, b]) await client.ask(before);
  const had = b.addresses();

  const after = startEndpoint(prefixes);
  expect(await b.ask(after)).toEqual(had); // though it asks first
  expect((await c.ask(after)).src).toEqual(["172.16.1.1/32", "2001:db8::1/128"]);
  expect((await a.ask(after)).src).toContain("172.16.1.5/32"); // c was faster
});

test.each([
  ["polite", { src: ["10.1.0.1/32", "10.2.0.1/32"], dst: ["10.1.0.0/32", "10.2.0.0/32"] }],
  ["strict", { src: ["10.2.0.1/32"], dst: ["10.2.0.0/32"] }],
] as const)("a client that comes from another endpoint: %s has %j", async (policy, expected) => {
  const client = createClient("a");
  await client.ask(startEndpoint("10.1.0.0/24"));
  client.reselect();
  expect(await client.ask(startEndpoint("10.2.0.0/24", policy))).toEqual(expected);
});

test.each(["polite", "strict"] as const)(
  "endpoints with the same prefixes: a client that comes from one keeps nothing that somebody has at the other (%s)",
  async (policy) => {
    const prefixes = "172.16.1.0/24";
    const [a, b] = [createClient("a"), createClient("b")];
    const other = startEndpoint(prefixes, policy);
    await b.ask(other);
    await a.ask(startEndpoint(prefixes, policy));
    expect(a.addresses()).toEqual(b.addresses()); // each is the first of its endpoint
    a.reselect();
    const expected = { src: ["172.16.1.3/32"], dst: ["172.16.1.2/32"] };
    expect(await a.ask(other)).toEqual(expected);
    expect(await a.ask(other)).toEqual(expected);
    expect(await b.ask(other)).toEqual({ src: ["172.16.1.1/32"], dst: ["172.16.1.0/32"] });
  },
);
