import { expect, test } from "vitest";
import { getFamily } from "../../../sdk/netlink/generic.ts";
import { decodeDevice, encodeEndpoint, getDevice, setDevice } from "./messages.ts";
import { formatConfiguration, parseDump } from "./wg-tool.ts";

const key = (byte: number) => new Uint8Array(32).fill(byte);
const shape = {
  remoteIp: "10.9.0.2",
  localPort: 51820,
  remotePort: 51821,
  privateKey: key(1),
  remotePublicKey: key(2),
};

test("the family is asked for by name", () => {
  expect(Buffer.from(getFamily("wireguard").body).toString("hex")).toBe(
    "030100000e000200776972656775617264000000",
  );
});

test("a device is configured in one message: key, port, one peer that may carry everything", () => {
  const request = setDevice(25, 7, shape);
  expect([request.type, request.flags]).toEqual([25, 0]);
  expect(Buffer.from(request.body).toString("hex")).toBe(
    `01010000 08000100 07000000 24000300 ${"01".repeat(32)} 06000600 6cca0000 08000500 01000000
     98000880 94000080
       24000100 ${"02".repeat(32)} 08000300 02000000 14000400 0200ca6d 0a090002 0000000000000000 06000500 0a000000
       48000980 1c000080 06000100 02000000 08000200 00000000 05000300 00000000
                28000080 06000100 0a000000 14000200 ${"00".repeat(16)} 05000300 00000000`.replaceAll(
      /\s/g,
      "",
    ),
  );
});

test("one device is read by a dump", () => {
  const request = getDevice(25, 7);
  expect([request.type, request.flags]).toEqual([25, 0x300]);
  expect(Buffer.from(request.body).toString("hex")).toBe("000100000800010007000000");
});

test("an endpoint is a socket address of its family", () => {
  expect(encodeEndpoint("fd09::2", 51821).toString("hex")).toBe(
    "0a00ca6d00000000fd09000000000000000000000000000200000000",
  );
});

test("keys, port and peer are read back; a device without a key is none", () => {
  const body = Buffer.from(setDevice(25, 7, { ...shape, remoteIp: "fd09::2" }).body);
  // The kernel answers with the public key as well.
  const publicKey = Buffer.concat([Buffer.from("24000400", "hex"), key(3)]);
  const message = { type: 25, flags: 0, seq: 1, body: Buffer.concat([body, publicKey]) };
  expect(decodeDevice(message)).toEqual({
    privateKey: key(1),
    publicKey: key(3),
    port: 51820,
    remotePublicKey: key(2),
    remoteIp: "fd09::2",
    remotePort: 51821,
  });
  expect(
    decodeDevice({ ...message, body: Buffer.from("0001000008000100070000000600060000000000", "hex") }),
  ).toBeUndefined();
});

test("the time of the last handshake is read back, and none is none", () => {
  const time = (hex: string) =>
    decodeDevice({ type: 25, flags: 0, seq: 1, body: Buffer.from(device(hex), "hex") });
  const keys = `24000300${"01".repeat(32)}24000400${"03".repeat(32)}`;
  const device = (hex: string) => `00010000${keys}1c0008801800008014000600${hex}`;
  // 1767225605 s and 250 ms since 1970.
  expect(time("05b9556900000000 80b2e60e00000000".replace(" ", ""))?.lastHandshakeMs).toBe(1_767_225_605_250);
  expect(time("00".repeat(16))?.lastHandshakeMs).toBeUndefined();
});

test("the tool reads a configuration", () => {
  expect(formatConfiguration({ ...shape, remoteIp: "fd09::2" })).toBe(`[Interface]
PrivateKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=
ListenPort = 51820
[Peer]
PublicKey = AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = [fd09::2]:51821
PersistentKeepalive = 10
`);
});

test.each([
  ["10.9.0.2:51821", "10.9.0.2", 51821],
  ["[fd09::2]:51821", "fd09::2", 51821],
  ["(none)", undefined, undefined],
])("the tool's dump with endpoint %s", (endpoint, remoteIp, remotePort) => {
  const base64 = (byte: number) => Buffer.from(key(byte)).toString("base64");
  const text = `${base64(1)}\t${base64(3)}\t51820\toff\n${base64(2)}\t(none)\t${endpoint}\t0.0.0.0/0,::/0\t0\t0\t0\t10\n`;
  expect(parseDump(text)).toEqual({
    privateKey: key(1),
    publicKey: key(3),
    port: 51820,
    remotePublicKey: key(2),
    remoteIp,
    remotePort,
    lastHandshakeMs: undefined,
  });
  expect(parseDump(text.replace("\t0\t0\t0\t10", "\t1767225605\t0\t0\t10"))?.lastHandshakeMs).toBe(
    1_767_225_605_000,
  );
});

test("a device without key or peer", () => {
  expect(parseDump("(none)\t(none)\t0\toff\n")).toBeUndefined();
  expect(parseDump("AQ==\tAw==\t1\toff\n")).toMatchObject({ port: 1, remotePublicKey: undefined });
});
