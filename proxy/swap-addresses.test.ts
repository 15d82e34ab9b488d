import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionSchema, MechanismSchema } from "../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import type { NetworkService } from "../sdk/chain.ts";
import { callBy } from "../test/support/chain.ts";
import { makePeer } from "../test/support/peer.ts";
import { swapAddresses } from "./swap-addresses.ts";

const forwarder = { ...callBy(await makePeer("/forwarder/one")), way: undefined, domain: "west" };
const proxy = { ...callBy(await makePeer("/nsmgr-proxy/west")), way: undefined };
const peers = { domainOf: (id: string) => (id.includes("/nsmgr-proxy/") ? "west" : undefined) };
const OUTER: Readonly<Record<string, string>> = { "10.0.0.1": "198.51.100.1", "10.0.0.2": "198.51.100.2" };
const domains = new Set<string | undefined>();
const outer = (inner: string, domain?: string) => {
  domains.add(domain);
  return OUTER[inner] ?? inner;
};

const tunnel = (parameters: Record<string, string>) =>
  create(MechanismSchema, { cls: "REMOTE", type: "WIREGUARD", parameters });

/** What the next hop saw, and what came back. */
async function pass(parameters: Record<string, string>, answered: Record<string, string>, mtuBytes = 1420) {
  const seen: Record<string, string>[] = [];
  const next: NetworkService = {
    request(request) {
      for (const { parameters: sent } of request.mechanismPreferences) seen.push({ ...sent });
      return Promise.resolve(create(ConnectionSchema, { mechanism: tunnel({ ...seen[0], ...answered }) }));
    },
    close: () => Promise.resolve(),
  };
  const request = create(NetworkServiceRequestSchema, {
    connection: create(ConnectionSchema, { id: "id" }),
    mechanismPreferences: [tunnel(parameters)],
  });
  const response = await swapAddresses(
    outer,
    peers,
    mtuBytes,
  )(next).request(request, parameters["orig_src_ip"] === undefined ? forwarder : proxy);
  return { seen, answer: response.mechanism?.parameters };
}

test("on the asking side the other domain sees the outer address, and the forwarder its own again", async () => {
  const { seen, answer } = await pass({ src_ip: "10.0.0.1" }, { dst_ip: "198.51.100.2" });
  expect(seen).toEqual([{ src_ip: "198.51.100.1", orig_src_ip: "10.0.0.1" }]);
  expect(answer).toEqual({ src_ip: "10.0.0.1", orig_src_ip: "", dst_ip: "198.51.100.2" });
});

test("on the serving side the answer has the outer address, and a refresh asks for it anew", async () => {
  const arriving = { src_ip: "198.51.100.1", orig_src_ip: "10.0.0.1" };
  const { seen, answer } = await pass(
    { ...arriving, dst_ip: "198.51.100.2", orig_dst_ip: "10.0.0.2" },
    { dst_ip: "10.0.0.2" },
  );
  expect(seen).toEqual([{ ...arriving, dst_ip: "", orig_dst_ip: "" }]);
  expect(answer).toEqual({ ...arriving, dst_ip: "198.51.100.2", orig_dst_ip: "10.0.0.2" });
});

test("an address without another one stays as it is", async () => {
  const { seen, answer } = await pass({ src_ip: "192.0.2.9" }, { dst_ip: "192.0.2.10" });
  expect(seen).toEqual([{ src_ip: "192.0.2.9", orig_src_ip: "192.0.2.9" }]);
  expect(answer).toMatchObject({ src_ip: "192.0.2.9", dst_ip: "192.0.2.10" });
});

test("an outer address that a forwarder knows itself counts before all others, and goes no further", async () => {
  const asked = await pass(
    { src_ip: "10.0.0.1", src_external_ip: "203.0.113.5" },
    { dst_ip: "198.51.100.2" },
  );
  expect(asked.seen).toEqual([{ src_ip: "203.0.113.5", orig_src_ip: "10.0.0.1" }]);
  // It refreshes with what it was answered.
  expect(asked.answer).toMatchObject({ src_ip: "10.0.0.1", src_external_ip: "203.0.113.5" });
  const arriving = { src_ip: "198.51.100.1", orig_src_ip: "10.0.0.1", dst_external_ip: "192.0.2.66" };
  const served = await pass(arriving, { dst_ip: "10.0.0.2", dst_external_ip: "203.0.113.6" });
  expect(served.seen[0]).not.toHaveProperty("dst_external_ip");
  expect(served.answer).toMatchObject({ dst_ip: "203.0.113.6", orig_dst_ip: "10.0.0.2" });
  expect(served.answer).not.toHaveProperty("dst_external_ip");
  // What the asking side says of the serving one is its own word.
  expect((await pass(arriving, { dst_ip: "10.0.0.2" })).answer).toMatchObject({ dst_ip: "198.51.100.2" });
});

test("it is asked for with the other domain's name, whichever way the Request goes", async () => {
  domains.clear();
  await pass({ src_ip: "10.0.0.1" }, { dst_ip: "198.51.100.2" });
  await pass({ src_ip: "198.51.100.1", orig_src_ip: "10.0.0.1" }, { dst_ip: "10.0.0.2" });
  expect([...domains]).toEqual(["west"]);
});

test.for([
  ["8940", 1420, "1420"],
  ["1400", 1420, "1400"],
  ["8940", 1300, "1300"],
  ["8940", 8900, "8900"],
] as const)(
  "an MTU of %s passes a proxy of %i as %s, whichever way the Request goes: nodes do not know what is between the domains",
  async ([MTU, most, sent]) => {
    const leaving = await pass({ src_ip: "10.0.0.1", MTU }, {}, most);
    const arriving = await pass({ src_ip: "198.51.100.1", orig_src_ip: "10.0.0.1", MTU }, {}, most);
    expect([leaving, arriving].map(({ seen }) => seen[0]?.["MTU"])).toEqual([sent, sent]);
  },
);

test("where nothing is said of the MTU the proxy says nothing", async () => {
  expect((await pass({ src_ip: "10.0.0.1" }, {})).seen[0]).not.toHaveProperty("MTU");
});
