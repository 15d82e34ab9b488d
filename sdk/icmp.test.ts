import { expect, test } from "vitest";
import { decodeEchoReply, encodeEchoRequest, internetChecksum, socketAddress } from "./icmp.ts";

test("an echo request of IPv4 carries a checksum that verifies", () => {
  const message = encodeEchoRequest(4, 0x1234, 7);
  expect(message.subarray(0, 2).toString("hex")).toBe("0800");
  expect(message.subarray(4, 8).toString("hex")).toBe("12340007");
  expect(internetChecksum(message)).toBe(0);
});

test("the checksum is the one of RFC 1071", () => {
  expect(internetChecksum(Buffer.from("0001f203f4f5f6f7", "hex"))).toBe(0x220d);
  expect(internetChecksum(Buffer.from("01", "hex"))).toBe(0xfeff);
});

test("only a reply with our identifier counts", () => {
  const ip = Buffer.from("4500003c00000000400100007f0000017f000001", "hex");
  const reply = encodeEchoRequest(4, 0x1234, 7);
  reply[0] = 0;
  expect(decodeEchoReply(4, Buffer.concat([ip, reply]), 0x1234)).toBe(7);
  expect(decodeEchoReply(4, Buffer.concat([ip, reply]), 0x1235)).toBeUndefined();
  expect(decodeEchoReply(4, Buffer.concat([ip, encodeEchoRequest(4, 0x1234, 7)]), 0x1234)).toBeUndefined();
  const reply6 = encodeEchoRequest(6, 0x1234, 9);
  reply6[0] = 129;
  expect(decodeEchoReply(6, reply6, 0x1234)).toBe(9);
  for (const short of [Buffer.alloc(0), ip, Buffer.concat([ip, reply.subarray(0, 7)])])
    expect(decodeEchoReply(4, short, 0x1234)).toBeUndefined();
});

test("socket addresses have the kernel's layout", () => {
  expect(socketAddress("192.0.2.1").toString("hex")).toBe("02000000c00002010000000000000000");
  expect(socketAddress("2001:db8::1").toString("hex")).toBe(
    `0a00${"00".repeat(6)}20010db8${"00".repeat(11)}01${"00".repeat(4)}`,
  );
});
