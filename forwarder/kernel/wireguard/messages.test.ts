import { expect, test } from "vitest";
import { getFamily } from "../../../sdk/netlink/generic.ts";
import {
  decodeDevice,
  encodeEndpoint,
  getDevice,
  setBeat,
  setDevice,
  setNewPeer,
  setPlace,
} from "./messages.ts";

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

const hexOf = ({ body }: { body: Uint8Array }) => Buffer.from(body).toString("hex");

test("a peer alone is made anew as the whole device is, without key and port", () => {
  const device = hexOf(setDevice(25, 7, shape));
  const keyAndPort = `24000300${"01".repeat(32)}060006006cca0000`;
  expect(device).toContain(keyAndPort);
  expect(hexOf(setNewPeer(25, 7, shape))).toBe(device.replace(keyAndPort, ""));
});

test("a peer that is there is moved, and sent a keepalive, without its session", () => {
  const peer = (rest: string, bytes: number) =>
    `01010000 08000100 07000000 ${(bytes + 8).toString(16)}000880 ${(bytes + 4).toString(16)}000080 24000100 ${"02".repeat(32)} 08000300 04000000 ${rest}`.replaceAll(
      " ",
      "",
    );
  expect(hexOf(setPlace(25, 7, shape))).toBe(peer("14000400 0200ca6d 0a090002 0000000000000000", 64));
  expect(setBeat(25, 7, key(2)).map(hexOf)).toEqual([
    peer("06000500 00000000", 52),
    peer("06000500 0a000000", 52),
  ]);
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
    rxBytes: 0,
  });
  expect(
    decodeDevice({ ...message, body: Buffer.from("0001000008000100070000000600060000000000", "hex") }),
  ).toBeUndefined();
});

test("what was received of the peer is read back", () => {
  const keys = `24000300${"01".repeat(32)}24000400${"03".repeat(32)}`;
  const body = Buffer.from(`00010000${keys}14000880100000800c0007009402000000000000`, "hex");
  expect(decodeDevice({ type: 25, flags: 0, seq: 1, body })?.rxBytes).toBe(660);
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
