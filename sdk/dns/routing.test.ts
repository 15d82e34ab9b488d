import { expect, test } from "vitest";
import { searchDomainsOf, stagesFor } from "./routing.ts";
import type { ServerGroup } from "./routing.ts";

const own: ServerGroup = { servers: ["own"], domains: ["svc.cluster.local", "cluster.local"], isOwn: true };
const wire = (server: string, ...domains: string[]): ServerGroup => ({
  servers: [server],
  domains,
  isOwn: false,
});
const ways = (name: string, ...groups: readonly ServerGroup[]) =>
  stagesFor(name, groups).map((stage) =>
    stage.map(({ server, standing }) => `${server} ${standing}`).join(","),
  );

test.for<[string, readonly ServerGroup[], readonly string[]]>([
  ["example.com", [own, wire("a", "x"), wire("b")], ["own pod", "a other,b other"]],
  ["y.x", [own, wire("a", "x"), wire("b")], ["a domain", "own pod", "b other"]],
  [
    "z.y.x",
    [own, wire("a", "x"), wire("b", "y.x"), wire("c", "y.x")],
    ["b domain,c domain", "own pod", "a other"],
  ],
  ["y.x", [own, wire("own", "x")], ["own pod"]],
  ["y.x", [wire("a", "x"), wire("b")], ["a domain", "b other"]],
])("%s is asked for in stages", ([name, groups, expected]) => {
  expect(ways(name, ...groups)).toEqual(expected);
});

test("a name within a domain of the pod is for its own servers alone, however long a wire's domains are", () => {
  for (const name of ["db.svc.cluster.local", "DB.cluster.local", "cluster.local"])
    expect(ways(name, own, wire("a", "db.svc.cluster.local"), wire("b", "local"), wire("c"))).toEqual([
      "own pod",
    ]);
});

test("unless the pod's owner has accepted that domain of the wire", () => {
  const accepted = { ...wire("a", "lab.cluster.local", "local"), isAccepted: true };
  expect(ways("db.lab.cluster.local", own, accepted, wire("b"))).toEqual(["a domain", "own pod"]);
  expect(ways("db.cluster.local", own, accepted)).toEqual(["own pod"]);
});

test("search domains of a pod that has no servers are nobody's own", () => {
  const none = { ...own, servers: [] };
  expect(ways("db.cluster.local", none, wire("a"))).toEqual(["a other"]);
  expect(searchDomainsOf([wire("a", "x"), none])).toEqual({
    pods: [],
    others: ["svc.cluster.local", "cluster.local", "x"],
  });
  expect(searchDomainsOf([wire("a", "x", "cluster.local"), own])).toEqual({
    pods: ["svc.cluster.local", "cluster.local"],
    others: ["x"],
  });
});
