import { expect, test } from "vitest";
import { prefixOf } from "../prefix.ts";
import type { Request } from "./message.ts";
import {
  decodeAddress,
  decodeNeighbor,
  decodeRoute,
  deleteAddress,
  deleteNeighbor,
  deleteRoute,
  dumpAllRoutes,
  dumpNeighbors,
  dumpRoutes,
  getRoute,
  newAddress,
  newNeighbor,
  newRoute,
} from "./route.ts";

const v4 = prefixOf("10.0.0.1/32");
const v6 = prefixOf("fd00::1/128");
const everything = prefixOf("0.0.0.0/0");
const link = { prefix: v4, gateway: undefined, scope: "link" } as const;
const viaV4 = { prefix: everything, gateway: "10.0.0.2", scope: "universe" } as const;
const viaV6 = { prefix: v6, gateway: "fd00::2", scope: "universe" } as const;

test.each<[string, Request, number, number, string]>([
  [
    "an IPv4 address is both local and address",
    newAddress(7, v4),
    20,
    0x500,
    "02200000 07000000 08000100 0a000001 08000200 0a000001",
  ],
  [
    "an IPv6 address skips duplicate detection",
    newAddress(7, v6),
    20,
    0x500,
    "0a800000 07000000 14000100 fd000000000000000000000000000001 08000800 02000000",
  ],
  [
    "an address is deleted without flags",
    deleteAddress(7, v6),
    21,
    0,
    "0a800000 07000000 14000100 fd000000000000000000000000000001",
  ],
  [
    "a route on the link: main table, our protocol, link scope",
    newRoute(7, link),
    24,
    0xc00,
    "02200000 fe9dfd01 00000000 08000100 0a000001 08000400 07000000",
  ],
  [
    "a default route through a gateway is onlink",
    newRoute(7, viaV4),
    24,
    0xc00,
    "02000000 fe9d0001 04000000 08000100 00000000 08000400 07000000 08000500 0a000002",
  ],
  [
    "a route is deleted whatever its scope",
    deleteRoute(7, viaV6),
    25,
    0,
    `0a800000 fe9dff01 04000000 14000100 fd000000000000000000000000000001 08000400 07000000
     14000500 fd000000000000000000000000000002`,
  ],
  [
    "a neighbour is permanent and of our protocol",
    newNeighbor(7, { ip: "10.0.0.2", mac: "02:00:00:00:00:0b" }),
    28,
    0x500,
    "02000000 07000000 80000000 08000100 0a000002 0a000200 02000000000b0000 05000c00 9d000000",
  ],
  [
    "a neighbour is deleted by address",
    deleteNeighbor(7, "fd00::2"),
    29,
    0,
    "0a000000 07000000 00000000 14000100 fd000000000000000000000000000002",
  ],
  ["the way to a node", getRoute("10.9.0.2"), 26, 0, "02200000 00000000 00000000 08000100 0a090002"],
  [
    "our routes of a device",
    dumpRoutes(6, 7),
    26,
    0x300,
    "0a000000 fe9d0000 00000000 08000400 07000000 08000f00 fe000000",
  ],
  [
    "an IPv6 route replaces one of the same metric",
    newRoute(7, { prefix: v6, gateway: undefined, scope: "link", metric: 1025 }),
    24,
    0x500,
    `0a800000 fe9dfd01 00000000 14000100 fd000000000000000000000000000001 08000400 07000000
     08000600 01040000`,
  ],
  [
    "an IPv6 route whose gateway is routed is not onlink",
    newRoute(7, { ...viaV6, isGatewayRouted: true }),
    24,
    0x500,
    `0a800000 fe9d0001 00000000 14000100 fd000000000000000000000000000001 08000400 07000000
     14000500 fd000000000000000000000000000002`,
  ],
  [
    "a route of a table above 255",
    newRoute(7, { ...link, table: 1000 }),
    24,
    0x500,
    "02200000 009dfd01 00000000 08000100 0a000001 08000400 07000000 08000f00 e8030000",
  ],
  [
    "a route to nowhere has no device, and the protocol of whoever makes it",
    newRoute(0, {
      prefix: everything,
      gateway: undefined,
      scope: "universe",
      table: 1000,
      metric: 9,
      isBlackhole: true,
      protocol: 158,
    }),
    24,
    0x500,
    "02000000 009e0006 00000000 08000100 00000000 08000600 09000000 08000f00 e8030000",
  ],
  ["all routes", dumpAllRoutes(4), 26, 0x300, "02000000 00000000 00000000"],
  ["all routes of a table", dumpAllRoutes(6, 254), 26, 0x300, "0a000000 00000000 00000000 08000f00 fe000000"],
  ["neighbours of a link", dumpNeighbors(7), 30, 0x300, "00000000 00000000 00000000 08000800 07000000"],
])("%s", (_, request, type, flags, body) => {
  expect([request.type, request.flags]).toEqual([type, flags]);
  expect(Buffer.from(request.body).toString("hex")).toBe(body.replaceAll(/\s/g, ""));
});

const message = (request: Request) => ({ type: 0, flags: 0, seq: 1, body: Buffer.from(request.body) });

test("addresses, routes and neighbours are read back", () => {
  expect(decodeAddress(message(newAddress(7, v4)))).toEqual({ ...v4, ifindex: 7, scope: 0 });
  expect(decodeAddress(message(newAddress(7, v6)))).toEqual({ ...v6, ifindex: 7, scope: 0 });
  expect(decodeRoute(message(newRoute(7, link)))).toMatchObject({
    ...link,
    ifindex: 7,
    table: 254,
    protocol: 157,
  });
  expect(decodeRoute(message(newRoute(7, viaV6)))).toMatchObject({ ...viaV6, ifindex: 7 });
  const nowhere = { ...viaV6, gateway: undefined, table: 1000, isBlackhole: true, protocol: 158 };
  expect(decodeRoute(message(newRoute(0, nowhere)))).toEqual({
    ...nowhere,
    ifindex: undefined,
    mtu: undefined,
  });
  const neighbor = { ip: "fd00::2", mac: "02:00:00:00:00:0b" };
  expect(decodeNeighbor(message(newNeighbor(7, neighbor)))).toEqual({
    ...neighbor,
    ifindex: 7,
    protocol: 157,
    permanent: true,
  });
});

test("a route without a destination is the default route, its MTU is in the metrics", () => {
  const body = Buffer.from("02000000fe020001000000000c0008800800020014050000", "hex");
  expect(decodeRoute({ type: 24, flags: 0, seq: 1, body })).toMatchObject({
    prefix: everything,
    mtu: 1300,
    ifindex: undefined,
  });
});

test("families that are not IP are skipped", () => {
  const body = Buffer.from("07000000070000000000000008000100010203040a000200020000000001", "hex");
  expect(decodeNeighbor({ type: 28, flags: 0, seq: 1, body })).toBeUndefined();
  expect(decodeRoute({ type: 24, flags: 0, seq: 1, body: Buffer.alloc(12, 0x80) })).toBeUndefined();
});
