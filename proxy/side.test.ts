import { clone } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionSchema } from "../api/gen/connection_pb.js";
import { parseRefusedAddresses } from "../sdk/endpoint-url.ts";
import type { CallContext } from "../sdk/chain.ts";
import { callBy, createRecorder, requestOn } from "../test/support/chain.ts";
import { makePeer } from "../test/support/peer.ts";
import { chooseSide } from "./side.ts";
import type { WithSide } from "./side.ts";

/**
 * What a request for `nse@west` comes to, whose domain's registry says that it is at `url`; `home`: the manager of this domain where it
 * is instead.
 */
async function ask(
  from: string,
  url: string,
  options: { service?: string; home?: string; hops?: readonly string[] } = {},
) {
  const { service: asked = "service@west", home, hops = ["client", "proxy"] } = options;
  const ways: (string | undefined)[] = [];
  const services: (string | undefined)[] = [];
  const recorder = createRecorder<CallContext & WithSide>();
  const { answer } = recorder;
  recorder.answer = (call, ctx) => {
    ways.push(ctx.way?.url);
    services.push(call.connection?.networkService);
    return answer(call, ctx);
  };
  const element = chooseSide({
    remote: {
      isSpread: () => false,
      registered: () => (home === undefined ? undefined : { url: home, services: ["other@west"] }),
      find: () => Promise.resolve(url),
    },
    peers: { domainOf: (id) => (id.includes("/linked/") ? "north" : undefined) },
    isForwarder: (id) => id.includes("/forwarder/"),
    isProxy: (id) => id.includes("/proxy/"),
    isManager: () => false,
    refusedAddresses: parseRefusedAddresses("127.0.0.0/8,169.254.0.0/16"),
  })(recorder);
  const request = requestOn(hops);
  if (request.connection !== undefined) {
    request.connection.networkService = asked;
    request.connection.networkServiceEndpointName = "nse@west";
  }
  const response = await element.request(request, callBy(await makePeer(from)));
  const { networkService: service, networkServiceEndpointName: name } = response;
  return { ways, services, service, name };
}

test("a forwarder's Request goes out to the other domain's proxy", async () => {
  const asked = await ask("/forwarder/one", "tcp://192.0.2.1:5004");
  expect(asked).toMatchObject({ ways: ["tcp://192.0.2.1:5004"], name: "nse@west" });
});

test("a proxy's Request comes in, and is answered with the names that it asked for", async () => {
  expect(await ask("/proxy/west", "tcp://192.0.2.1:5004")).toEqual({
    ways: [undefined],
    services: ["service"],
    service: "service@west",
    name: "nse@west",
  });
});

test("a service that has endpoints in the other domain, too, is asked for by its name there", async () => {
  expect(await ask("/forwarder/one", "tcp://192.0.2.1:5004", { service: "service" })).toMatchObject({
    services: ["service@west"],
    service: "service",
    name: "nse@west",
  });
});

test("nobody else may ask", async () => {
  await expect(ask("/workload/any", "tcp://192.0.2.1:5004")).rejects.toMatchObject({ reason: "not-a-proxy" });
});

test.for(["tcp://127.0.0.1:22", "tcp://169.254.169.254:80"])(
  "another domain's registry leads nobody to %s",
  async (url) => {
    await expect(ask("/forwarder/one", url)).rejects.toMatchObject({ reason: "refused-address" });
  },
);

const HOME = "tcp://192.0.2.2:5001";

test("an endpoint of this domain that is registered in another one is at its manager, also for a chain that was here before", async () => {
  for (const before of [["client"], ["client", "proxy", "manager", "forwarder", "link"]]) {
    const hops = [...before, "manager", "forwarder", "proxy"];
    expect(await ask("/forwarder/one", "", { home: HOME, hops })).toMatchObject({ ways: [HOME] });
  }
});

test("a Request that comes back from the manager to which it was passed goes round no more", async () => {
  const hops = ["client", "proxy", "manager", "forwarder", "proxy"];
  await expect(ask("/forwarder/one", "", { home: HOME, hops })).rejects.toMatchObject({
    code: "UNAVAILABLE",
    reason: "endpoint-not-here",
  });
});

test.for([
  ["other@west", "tcp://192.0.2.9:5001"],
  ["service@west", undefined],
])(
  "another domain's Request for %s reaches one that is registered elsewhere at %s",
  async ([service, way]) => {
    const asked = await ask("/linked/north", "tcp://192.0.2.1:5004", {
      service: service ?? "",
      home: "tcp://192.0.2.9:5001",
    });
    expect(asked.ways).toEqual([way]);
  },
);

test("a Close of the proxy itself goes where the Request went", async () => {
  const closes: (string | undefined)[] = [];
  const recorder = createRecorder<CallContext & WithSide>();
  const { answer } = recorder;
  recorder.answer = (call, ctx) => {
    if (call.kind === "close") closes.push(ctx.way?.url);
    return answer(call, ctx);
  };
  const element = chooseSide({
    remote: {
      registered: () => undefined,
      find: () => Promise.resolve("tcp://192.0.2.9:5004"),
      isSpread: () => false,
    },
    peers: { domainOf: () => undefined },
    isForwarder: (id) => id.includes("/forwarder/"),
    isProxy: (id) => id.includes("/proxy/"),
    isManager: () => false,
    refusedAddresses: [],
  })(recorder);
  for (const from of ["/proxy/west", "/forwarder/one"]) {
    const request = requestOn(["client", "proxy"]);
    const { connection } = request;
    if (connection === undefined) throw new Error("a request has a connection");
    connection.networkServiceEndpointName = "nse@west";
    const asked = clone(ConnectionSchema, connection);
    await element.request(request, callBy(await makePeer(from)));
    await element.close(asked, { ...callBy(await makePeer(from)), peer: undefined });
  }
  expect(closes).toEqual([undefined, "tcp://192.0.2.9:5004"]);
});
