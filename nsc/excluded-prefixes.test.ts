import { clone, create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ConnectionSchema, PathSegmentSchema } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";
import { createIpam, parsePrefixGroups } from "../sdk/ipam/group.ts";
import { parseAwarenessGroups, parseServiceUrls } from "../sdk/ns-url.ts";
import { groupOf } from "./awareness-groups.ts";
import { excludeOtherWires } from "./excluded-prefixes.ts";
import type { Manager } from "../sdk/manager-client.ts";
import { firstRequest } from "./request.ts";

const signal = new AbortController().signal;

/** Endpoints by service, each with pools of its own; what they were asked is kept. */
function build(
  pools: Readonly<Record<string, string>>,
  groups = new Map<string, number>(),
  adopted: Connection[] = [],
) {
  const ipams = new Map(
    Object.entries(pools).map(([service, text]) => [service, createIpam(parsePrefixGroups(text), "strict")]),
  );
  const asked: NetworkServiceRequest[] = [];
  const closed: string[] = [];
  /** Changes an answer on its way back. */
  let change: (answer: Connection) => void = () => undefined;
  const inner: Manager = {
    request(request) {
      asked.push(request);
      const connection = clone(ConnectionSchema, request.connection ?? create(ConnectionSchema));
      const ipam = ipams.get(connection.networkService);
      const context = connection.context?.ipContext;
      if (ipam === undefined || context === undefined) return Promise.reject(new Error("no such service"));
      try {
        ipam.request(connection.id, context).commit();
      } catch (error) {
        return Promise.reject(error instanceof Error ? error : new Error("?"));
      }
      connection.path?.pathSegments.splice(1, 9, create(PathSegmentSchema, { name: "nse" }));
      change(connection);
      return Promise.resolve(connection);
    },
    close(connection) {
      closed.push(connection.id);
      ipams.get(connection.networkService)?.close(connection.id);
      return Promise.resolve();
    },
    monitor: () => {
      throw new Error("not used");
    },
  };
  const manager = excludeOtherWires(inner, { groupOf: (id) => groups.get(id), adopted });
  return {
    manager,
    asked,
    closed,
    change: (next: typeof change) => (change = next),
    first: (id: string, networkService: string) => manager.request(wish(id, networkService), signal),
    again: (connection: Connection) => {
      const request = wish(connection.id, connection.networkService);
      request.connection = clone(ConnectionSchema, connection);
      return manager.request(request, signal);
    },
    excludedLast: () => asked.at(-1)?.connection?.context?.ipContext?.excludedPrefixes,
  };
}

function wish(id: string, networkService: string): NetworkServiceRequest {
  const netnsUrl = "inode://4/4026531840";
  return firstRequest({ id, name: "nsc", networkService, labels: {}, interfaceName: undefined, netnsUrl });
}

const srcOf = (connection: Connection) => connection.context?.ipContext?.srcIpAddrs;
const dstOf = (connection: Connection) => connection.context?.ipContext?.dstIpAddrs;

const POOL = "172.16.0.96/29";

test("one client, two endpoints with the same pool: pairs 96/97 and 98/99", async () => {
  const { first } = build({ one: POOL, two: POOL });
  const [a, b] = [await first("0", "one"), await first("1", "two")];
  expect([dstOf(a), srcOf(a)]).toEqual([["172.16.0.96/32"], ["172.16.0.97/32"]]);
  expect([dstOf(b), srcOf(b)]).toEqual([["172.16.0.98/32"], ["172.16.0.99/32"]]);
});

test("AwareNSEs: members of one group have the same addresses, others do not", async () => {
  const groups = new Map([
    ["0", 0],
    ["1", 0],
    ["3", 1],
  ]);
  const { first } = build({ one: POOL, two: POOL, three: POOL, four: POOL }, groups);
  const [a, b] = [await first("0", "one"), await first("1", "two")];
  expect(srcOf(a)).toEqual(srcOf(b));
  expect(srcOf(await first("2", "three"))).toEqual(["172.16.0.99/32"]);
  expect(srcOf(await first("3", "four"))).toEqual(["172.16.0.101/32"]);
});

test("a group names a wish as it is written, or with the labels of node and pod", () => {
  const [a, b, c] = parseServiceUrls("kernel://a/nsm-1?x=1,kernel://b,kernel://c");
  const groups = parseAwarenessGroups("[kernel://z],[kernel://a/nsm-1?x=1,kernel://b?nodeName=n]");
  const info = new Map([["nodeName", "n"]]);
  expect([a, b, c].map((url) => url && groupOf(url, groups, info))).toEqual([1, 1, undefined]);
  expect([a, b, c].map((url) => url && groupOf(url, groups, new Map()))).toEqual([1, undefined, undefined]);
});

test("two wires that are asked for at the same time: the later answer is given back and asked for again", async () => {
  const { first, closed, asked } = build({ one: POOL, two: POOL });
  const [a, b] = await Promise.all([first("0", "one"), first("1", "two")]);
  expect(closed).toEqual(["1"]);
  expect(asked).toHaveLength(3);
  expect(srcOf(a)).toEqual(["172.16.0.97/32"]);
  expect(srcOf(b)).toEqual(["172.16.0.99/32"]);
});

test("a refresh does not exclude the wire's own addresses", async () => {
  const { first, again, excludedLast } = build({ one: POOL, two: "10.0.0.0/31" });
  const a = await first("0", "one");
  await first("1", "two");
  const after = await again(a);
  expect(srcOf(after)).toEqual(srcOf(a));
  expect(excludedLast()).toEqual(["10.0.0.0/31"]);
});

test("what managers added on the way is not sent again, and not passed on to other wires", async () => {
  const { first, again, change, excludedLast } = build({ one: POOL, two: POOL });
  change((answer) => answer.context?.ipContext?.excludedPrefixes.push("0.0.0.0/0"));
  const a = await first("0", "one");
  change(() => undefined);
  await first("1", "two");
  expect(excludedLast()).toEqual(["172.16.0.96/31"]);
  await again(a);
  expect(excludedLast()).toEqual(["172.16.0.98/31"]);
});

test("hosts behind a wire are excluded, networks are not", async () => {
  const { first, change, excludedLast } = build({ one: POOL, two: POOL });
  change((answer) => {
    const routes = answer.context?.ipContext?.srcRoutes;
    for (const prefix of ["10.1.0.0/16", "10.2.0.53/32"])
      if (routes?.[0] !== undefined) routes.push({ ...routes[0], prefix });
  });
  await first("0", "one");
  await first("1", "two");
  expect(excludedLast()).toEqual(["10.2.0.53/32", "172.16.0.96/31"]);
});

test("a request that fails changes nothing; a Close frees what no other wire has", async () => {
  const { first, again, manager, excludedLast } = build({ one: "172.16.0.0/31", two: "172.16.0.0/29" });
  const a = await first("0", "one");
  const b = await first("1", "two");
  await expect(first("2", "three")).rejects.toThrow("no such service");
  await again(b);
  expect(excludedLast()).toEqual(["172.16.0.0/31"]);
  await manager.close(a, signal);
  await again(b);
  expect(excludedLast()).toEqual([]);
});

test("an endpoint that insists on a taken address gets the wire back, and the error says what to do", async () => {
  const { first, change, closed } = build({ one: POOL, two: POOL });
  await first("0", "one");
  change((answer) => answer.context?.ipContext?.srcIpAddrs.push("172.16.0.97/24"));
  await expect(first("1", "two")).rejects.toMatchObject({
    code: "ALREADY_EXISTS",
    reason: "address-conflict",
    message: expect.stringMatching(/172\.16\.0\.97\/32.*NSM_AWARENESS_GROUPS/),
  });
  expect(closed).toEqual(["1", "1", "1", "1"]);
});

test("an established wire that is given a taken address is not closed: its endpoint exchanges the address", async () => {
  const { first, again, change, closed } = build({ one: "172.16.0.0/31", two: "172.16.0.0/29" });
  await first("0", "one");
  const b = await first("1", "two");
  let times = 0;
  change((answer) => {
    if (times++ === 0) answer.context?.ipContext?.srcIpAddrs.push("172.16.0.1/32");
  });
  expect(srcOf(await again(b))).toEqual(["172.16.0.3/32"]);
  expect(closed).toEqual([]);
});

test("what an earlier life of the client has is excluded from the start", async () => {
  const before = build({ one: POOL });
  const adopted = await before.first("0", "one");
  const { first } = build({ two: POOL }, new Map(), [adopted]);
  expect(srcOf(await first("1", "two"))).toEqual(["172.16.0.99/32"]);
});

test("more than fits into a request: addresses before hosts, never more than 96", async () => {
  const { first, change, excludedLast } = build({ one: POOL, two: POOL });
  change((answer) => {
    const routes = answer.context?.ipContext?.srcRoutes;
    for (let i = 0; i < 120; i++)
      if (routes?.[0] !== undefined) routes.push({ ...routes[0], prefix: `10.0.${i}.1/32` });
  });
  await first("0", "one");
  await first("1", "two");
  expect(excludedLast()).toEqual(["172.16.0.96/31"]);
});
