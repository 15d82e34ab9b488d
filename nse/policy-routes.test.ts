import { clone, create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionSchema, MonitorScopeSelectorSchema, State } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import { ConnectionContextSchema, PolicyRouteSchema } from "../api/gen/connectioncontext_pb.js";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import { createMonitorStore } from "../sdk/elements/monitor.ts";
import { callBy, connectionOn, createRecorder, requestOn } from "../test/support/chain.ts";
import { makePeer } from "../test/support/peer.ts";
import { parsePolicyRoutes } from "./policy-routes-file.ts";
import { policyRoutes, requestRefresh } from "./policy-routes.ts";

const PEER = await makePeer("/a");

test("the file of the Go endpoint reads as policies, numbers as texts", () => {
  const text = `
- proto: 6
  dstport: 6666
  srcport: 10-20
  routes:
  - prefix: 172.16.3.0/24
    nexthop: 172.16.2.200
- from: 172.16.2.201/24
- from: "2004::5/120"
  proto: "17"
`;
  expect(parsePolicyRoutes(text)).toEqual([
    create(PolicyRouteSchema, {
      proto: "6",
      dstPort: "6666",
      srcPort: "10-20",
      routes: [{ prefix: "172.16.3.0/24", nextHop: "172.16.2.200" }],
    }),
    create(PolicyRouteSchema, { from: "172.16.2.201/24" }),
    create(PolicyRouteSchema, { from: "2004::5/120", proto: "17" }),
  ]);
  expect(parsePolicyRoutes("")).toEqual([]);
});

test.each([
  "a: b",
  "- form: 10.0.0.0/8",
  "- from: 10.0.0.0",
  "- proto: tcp",
  "- proto: 256",
  "- dstport: 65536",
  "- dstport: ''",
  "- routes: [{ prefix: 10.0.0.0 }]",
  "- routes: [{ prefix: 10.0.0.0/8, nexthop: gateway }]",
  JSON.stringify(Array.from({ length: 17 }, () => ({ proto: 6 }))),
  "- [",
])("the file %j is refused", (text) => {
  expect(() => parsePolicyRoutes(text)).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT", reason: "bad-policy-routes" }),
  );
});

test("a fault of a policy is told with its place", () => {
  expect(() => parsePolicyRoutes("- proto: 6\n- form: 10.0.0.0/8\n")).toThrow(
    "line 2, column 3: [1].form is not known here",
  );
});

test("a connection has the policies of now, and their sources as addresses; those of before go", async () => {
  let file = parsePolicyRoutes("[{ from: 172.16.2.201/32, proto: 6 }, { dstport: 80 }]");
  const service = policyRoutes(() => file)(createRecorder());
  const ask = (connection: Connection) =>
    service.request(create(NetworkServiceRequestSchema, { connection }), callBy(PEER));

  const first = connectionOn(["client", "me"]);
  first.context = requestOn(["client"]).connection?.context;
  const answer = await ask(first);
  expect(answer.context?.ipContext?.srcIpAddrs).toEqual(["172.16.2.201/32"]);
  expect(answer.context?.ipContext?.policies).toEqual(file);

  file = parsePolicyRoutes("[{ from: 172.16.2.202/32 }]");
  answer.context?.ipContext?.srcIpAddrs.push("10.0.0.1/32"); // of the pool
  const again = await ask(clone(ConnectionSchema, answer));
  expect(again.context?.ipContext?.srcIpAddrs).toEqual(["10.0.0.1/32", "172.16.2.202/32"]);
  expect(again.context?.ipContext?.policies).toEqual(file);
});

test("the source of a policy that is gone goes although the first answer without it was refused on its way", async () => {
  let file = parsePolicyRoutes("[{ from: 172.16.2.201/32 }]");
  const service = policyRoutes(() => file)(createRecorder());
  const ask = async (...srcIpAddrs: string[]) => {
    const connection = connectionOn(["client", "me"]);
    connection.context = create(ConnectionContextSchema, { ipContext: { srcIpAddrs } });
    const answer = await service.request(create(NetworkServiceRequestSchema, { connection }), callBy(PEER));
    return answer.context?.ipContext?.srcIpAddrs;
  };
  expect(await ask()).toEqual(["172.16.2.201/32"]);
  file = parsePolicyRoutes("[{ dstport: 53 }]");
  expect(await ask("172.16.2.201/32")).toEqual([]);
  expect(await ask("172.16.2.201/32")).toEqual([]); // it never saw that answer, and brings the address again
  file = [];
  expect(await ask("172.16.2.201/32")).toEqual([]);
  expect(await ask()).toEqual([]);
  expect(await ask("172.16.2.201/32")).toEqual(["172.16.2.201/32"]); // not ours any more
});

test("a change asks every client to refresh, at once", async () => {
  const store = createMonitorStore();
  const stop = new AbortController();
  const connection = connectionOn(["client", "me"]);
  connection.state = State.UP;
  store.update(connection, "spiffe://a/b");
  const states: State[] = [];
  for await (const event of store.subscribe(
    create(MonitorScopeSelectorSchema),
    "spiffe://a/b",
    stop.signal,
  )) {
    states.push(...Object.values(event.connections).map(({ state }) => state));
    if (states.length === 1) requestRefresh(store);
    else break;
  }
  expect(states).toEqual([State.UP, State.REFRESH_REQUESTED]);
});
