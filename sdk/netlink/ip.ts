/** IP addresses and MACs as bytes of messages, and MACs as text. Pure. */
import { formatAddress, parseIpAsWritten } from "../prefix.ts";
import type { IpAddress } from "../prefix.ts";

/** AF_INET and AF_INET6 (linux/socket.h). */
export const AF = { 4: 2, 6: 10 } as const;

/** 4 or 16 bytes, the highest first. */
export function addressBytes({ family, address }: IpAddress): Buffer {
  if (family === 4) {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(Number(address));
    return bytes;
  }
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64BE(address >> 64n, 0);
  bytes.writeBigUInt64BE(address & 0xffff_ffff_ffff_ffffn, 8);
  return bytes;
}

/** Of 4 or 16 bytes. */
export function addressOf(bytes: Buffer): IpAddress {
  if (bytes.length === 4) return { family: 4, address: BigInt(bytes.readUInt32BE(0)) };
  return { family: 6, address: (bytes.readBigUInt64BE(0) << 64n) | bytes.readBigUInt64BE(8) };
}

/** Of the text of an address. Throws for any other text. */
export function ipBytes(text: string): Buffer {
  const ip = parseIpAsWritten(text);
  if (ip === undefined) throw new Error(`${JSON.stringify(text)} is no IP address`);
  return addressBytes(ip);
}

/** Canonical, so that two addresses are the same when their texts are equal (RFC 5952). */
export function ipText(bytes: Buffer): string {
  return bytes.length === 4 ? bytes.join(".") : formatAddress(addressOf(bytes));
}

/** Canonical `aa:bb:cc:dd:ee:ff`; undefined when `text` is no unicast MAC address. */
export function parseMac(text: string): string | undefined {
  if (!/^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$/.test(text)) return undefined;
  const mac = text.toLowerCase().replaceAll("-", ":");
  return Number.parseInt(mac.slice(0, 2), 16) & 1 || mac === "00:00:00:00:00:00" ? undefined : mac;
}

export function macBytes(mac: string): Uint8Array {
  return Uint8Array.from(mac.split(":"), (byte) => Number.parseInt(byte, 16));
}

export function macText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}
