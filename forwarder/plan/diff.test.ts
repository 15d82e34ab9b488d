import { expect, test } from "vitest";
import { diffEnd, freshEnd } from "./diff.ts";
import type { Change, FoundEnd } from "./diff.ts";
import { formatPrefix, prefixOf as prefix } from "../../sdk/prefix.ts";
import type { Route } from "../../sdk/netlink/route.ts";
import type { WantedEnd } from "./plan.ts";

const route = (text: string, gateway?: string): Route => {
  return { prefix: prefix(text), gateway, scope: gateway === undefined ? "link" : "universe" };
};
const neighbor = (ip: string, last: string) => ({ ip, mac: `02:00:00:00:00:${last}` });

const wanted: WantedEnd = {
  side: "client",
  netns: { pid: 1, inode: 1n },
  name: "nsm",
  binding: "b",
  alias: "nsm:1:w:client:b",
  mac: "02:00:00:00:00:01",
  mtu: 1400,
  noAddressGeneration: true,
  addresses: [prefix("10.0.0.1/32")],
  routes: [route("10.0.0.2/32"), route("10.1.0.0/16", "10.0.0.2")],
  neighbors: [neighbor("10.0.0.2", "02")],
  policies: [],
  brought: [],
  acceptsDefaultRoute: false,
  protectedAddresses: [],
};
const fresh = freshEnd(7, wanted);
const settled: FoundEnd = {
  link: { ...fresh.link, up: true, alias: wanted.alias, noAddressGeneration: true },
  addresses: wanted.addresses,
  routes: wanted.routes,
  neighbors: wanted.neighbors,
};

function words(change: Change): string {
  switch (change.do) {
    case "set-link":
      return `set ${Object.keys(change.link).join(" ")}`;
    case "add-address":
    case "delete-address":
      return `${change.do} ${formatPrefix(change.prefix)}`;
    case "add-route":
    case "delete-route":
      return `${change.do} ${formatPrefix(change.route.prefix)}`;
    case "add-neighbor":
    case "delete-neighbor":
    default:
      return `${change.do} ${change.neighbor.ip}`;
  }
}

const everything = [
  "add-address 10.0.0.1/32",
  "add-route 10.0.0.2/32",
  "add-route 10.1.0.0/16",
  "add-neighbor 10.0.0.2",
];

test.each<[string, WantedEnd, FoundEnd, string[]]>([
  ["nothing to do", wanted, settled, []],
  [
    "a new device: marked before it is up, addresses before routes",
    wanted,
    fresh,
    ["set alias noAddressGeneration", "set up", ...everything],
  ],
  ["the device's default MTU is whatever it is", { ...wanted, mtu: 0 }, settled, []],
  ["MTU and MAC", { ...wanted, mtu: 1300, mac: "02:00:00:00:00:09" }, settled, ["set mtu mac"]],
  [
    "a device that somebody set down has lost its routes",
    wanted,
    { ...settled, link: { ...settled.link, up: false } },
    ["set up", ...everything],
  ],
  [
    "a removed address may have taken others and routes with it: all are written again",
    wanted,
    { ...settled, addresses: [prefix("10.0.0.9/32"), prefix("10.0.0.1/32")] },
    ["delete-address 10.0.0.9/32", ...everything],
  ],
  [
    "an added address removes nothing",
    { ...wanted, addresses: [...wanted.addresses, prefix("fd00::1/128")] },
    settled,
    ["add-address fd00::1/128"],
  ],
  [
    "a stale route goes, one whose gateway changed is in force until its successor is there",
    { ...wanted, routes: [route("10.0.0.2/32"), route("10.1.0.0/16", "10.0.0.3")] },
    { ...settled, routes: [...settled.routes, route("10.9.0.0/16", "10.0.0.2")] },
    ["delete-route 10.9.0.0/16", "add-route 10.1.0.0/16", "delete-route 10.1.0.0/16"],
  ],
  [
    "an IPv6 route whose gateway changed is replaced in one step",
    { ...wanted, routes: [route("fd01::/64", "fd00::3")] },
    { ...settled, routes: [route("fd01::/64", "fd00::2")] },
    ["add-route fd01::/64"],
  ],
  [
    "a stale neighbour goes, one with another MAC is replaced",
    { ...wanted, neighbors: [neighbor("10.0.0.2", "03")] },
    { ...settled, neighbors: [...settled.neighbors, neighbor("10.0.0.9", "09")] },
    ["delete-neighbor 10.0.0.9", "add-neighbor 10.0.0.2"],
  ],
  [
    "IPv6 routes have no scope to differ in",
    { ...wanted, routes: [route("fd00::2/128")] },
    { ...settled, routes: [{ ...route("fd00::2/128"), scope: "universe" }] },
    [],
  ],
])("%s", (_, end, found, changes) => {
  expect(diffEnd(end, found).map(words)).toEqual(changes);
});
