import { expect, test } from "vitest";
import type { Request } from "./message.ts";
import {
  decodeLink,
  deleteLink,
  dumpLinks,
  getLink,
  newBridge,
  newVeth,
  newVxlan,
  newWireguard,
  probeKind,
  setLink,
} from "./link.ts";

const hex = (value: string) => Buffer.from(value.replaceAll(/\s/g, ""), "hex");
const device = (name: string, ifindex: number, netnsFd: number, mac?: string) => {
  return { name, ifindex, netnsFd, group: 0x4e000001, mtu: 1500, mac };
};
const bare = { ...device("a", 7, 20), mtu: 0 };
const vxlan = { vni: 0x123456, localIp: "10.9.0.1", remoteIp: "10.9.0.2", port: 4789 };

/** Header: family, type, index, flags, change. Then length and type of each attribute. */
test.each<[string, Request, number, number, string]>([
  [
    "a veth pair with both ends in pods",
    newVeth(device("a", 7, 20, "02:00:00:00:00:0a"), device("b", 8, 21, "02:00:00:00:00:0b")),
    16,
    0x600,
    `00000000 07000000 00000000 00000000
     06000300 61000000  08001c00 14000000  08001b00 0100004e  08000400 dc050000  0a000100 02000000000a0000
     08001f00 01000000  08002000 01000000
     64001280 09000100 7665746800000000 54000280 50000180
       00000000 08000000 00000000 00000000
       06000300 62000000  08001c00 15000000  08001b00 0100004e  08000400 dc050000  0a000100 02000000000b0000
       08001f00 01000000  08002000 01000000`,
  ],
  [
    "a VXLAN device over IPv4: id, remote, local, no learning, port",
    newVxlan(bare, vxlan),
    16,
    0x600,
    `00000000 07000000 00000000 00000000 06000300 61000000 08001c00 14000000 08001b00 0100004e
     3c001280 0a000100 76786c616e000000 2c000280
       08000100 56341200  08000200 0a090002  08000400 0a090001  05000700 00000000  06000f00 12b50000`,
  ],
  [
    "a WireGuard device has no data",
    newWireguard(bare),
    16,
    0x600,
    `00000000 07000000 00000000 00000000 06000300 61000000 08001c00 14000000 08001b00 0100004e
     14001280 0e000100 77697265677561726400 0000`,
  ],
  [
    "a bridge that treats multicast as broadcast",
    newBridge("b"),
    16,
    0x600,
    `00000000 00000000 00000000 00000000 06000300 62000000
     1c001280 0b000100 62726964676500 00 0c000280 05001700 00000000`,
  ],
  [
    "a port of a bridge",
    setLink({ ifindex: 7, master: 9 }),
    19,
    0,
    "00000000 07000000 00000000 00000000 08000a00 09000000",
  ],
  [
    "alias, MTU, MAC and address generation in one change",
    setLink({ ifindex: 7, alias: "nsm", mtu: 1400, mac: "02:00:00:00:00:0a", noAddressGeneration: true }),
    19,
    0,
    `00000000 07000000 00000000 00000000
     07001400 6e736d00  08000400 78050000  0a000100 02000000000a0000  10001a80 0c000a80 05000800 01000000`,
  ],
  ["up", setLink({ ifindex: 7, up: true }), 19, 0, "00000000 07000000 01000000 01000000"],
  [
    "another name",
    setLink({ ifindex: 7, name: "b" }),
    19,
    0,
    "00000000 07000000 00000000 00000000 06000300 62000000",
  ],
  [
    "into another namespace under another name and index",
    setLink({ ifindex: 7, group: 1, move: { netnsFd: 20, name: "a", ifindex: 9 } }),
    19,
    0,
    `00000000 07000000 00000000 00000000
     08001c00 14000000  06000300 61000000  08003100 09000000  08001b00 01000000`,
  ],
  ["delete", deleteLink(7), 17, 0, "00000000 07000000 00000000 00000000"],
  ["by index", getLink({ ifindex: 7 }), 18, 0, "00000000 07000000 00000000 00000000 08001d00 08000000"],
  [
    "by name",
    getLink({ name: "a" }),
    18,
    0,
    "00000000 00000000 00000000 00000000 08001d00 08000000 06000300 61000000",
  ],
  ["by index, with counters", getLink({ ifindex: 7 }, true), 18, 0, "00000000 07000000 00000000 00000000"],
  ["all", dumpLinks(), 18, 0x300, "00000000 00000000 00000000 00000000 08001d00 08000000"],
  [
    "a probe that makes nothing: its MTU is refused",
    probeKind("veth"),
    16,
    0x600,
    `00000000 00000000 00000000 00000000 0e000300 6e736d2d70726f626500 0000 08000400 ffffffff
     10001280 09000100 7665746800000000`,
  ],
])("%s", (_, request, type, flags, body) => {
  expect([request.type, request.flags]).toEqual([type, flags]);
  expect(Buffer.from(request.body).toString("hex")).toBe(hex(body).toString("hex"));
});

test("a VXLAN device over IPv6 has the attributes of that family", () => {
  const { body } = newVxlan(bare, { ...vxlan, localIp: "fd09::1", remoteIp: "fd09::2" });
  expect(Buffer.from(body).toString("hex")).toContain("14001000fd090000000000000000000000000002");
  expect(Buffer.from(body).toString("hex")).toContain("14001100fd090000000000000000000000000001");
});

test("a link is read back as it was asked for", () => {
  const { body } = newVxlan({ ...bare, mtu: 1450, mac: "02:00:00:00:00:0a" }, vxlan);
  expect(decodeLink({ type: 16, flags: 0, seq: 1, body: Buffer.from(body) })).toEqual({
    ifindex: 7,
    name: "a",
    up: false,
    running: false,
    mtu: 1450,
    mac: "02:00:00:00:00:0a",
    group: 0x4e000001,
    alias: "",
    kind: "vxlan",
    peerIfindex: undefined,
    linkNetnsId: undefined,
    noAddressGeneration: false,
    vxlan,
  });
});

test("counters are read where the kernel sends them", () => {
  const header = Buffer.alloc(16);
  const stats = Buffer.alloc(4 + 8 * 3);
  stats.writeUInt16LE(stats.length, 0);
  stats.writeUInt16LE(23, 2);
  stats.writeBigUInt64LE(9n, 4 + 8 * 2);
  const { counters } = decodeLink({ type: 16, flags: 0, seq: 1, body: Buffer.concat([header, stats]) });
  expect(counters).toMatchObject({ rxPackets: 0, rxBytes: 9 });
});
