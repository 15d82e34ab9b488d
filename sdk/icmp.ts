/** ICMP echo in any network namespace (RFC 792, RFC 4443 section 4), over a raw socket that is bound to one address. */
import { randomBytes } from "node:crypto";
import { delay } from "./clock.ts";
import { NsmError } from "./errors.ts";
import {
  bindSocket,
  closeFd,
  connectSocket,
  insideNetns,
  openSocket,
  receive,
  sendSync,
  watchReadable,
} from "./native.ts";
import { ipBytes } from "./netlink/ip.ts";

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;

const ECHO = { 4: { request: 8, reply: 0 }, 6: { request: 128, reply: 129 } } as const;
type Family = keyof typeof ECHO;

export interface PingOptions {
  /** Open descriptor of the network namespace to ping from. */
  readonly netnsFd: number;
  /** Own address; the kernel picks one when it is undefined. */
  readonly source?: string | undefined;
  readonly target: string;
  /** How many requests are sent. */
  readonly count: number;
  /** Between two requests. */
  readonly intervalMs: number;
  /** How long the reply to the last request may take. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  readonly onReply?: (rttMs: number) => void;
}

export interface PingResult {
  readonly sent: number;
  /** Requests that were answered; a second reply to one doesn't count. */
  readonly received: number;
  /** Round-trip times in the order of arrival, milliseconds. */
  readonly rttsMs: readonly number[];
}

/** Pings and resolves when all replies are in or the time is up. A request that the kernel refuses (no route) is lost. */
export async function ping(options: PingOptions): Promise<PingResult> {
  const { source, target, count, intervalMs, timeoutMs, signal } = options;
  const family = ipBytes(target).length === 4 ? 4 : 6;
  const id = randomBytes(2).readUInt16BE();
  const sentAt = new Map<number, number>();
  const rttsMs: number[] = [];
  const complete = new AbortController();

  const fd = insideNetns(options.netnsFd, () => openEcho(family, source, target));
  const watch = watchReadable(fd, () => {
    const now = performance.now();
    for (const packet of packetsOf(fd)) {
      const sequence = decodeEchoReply(family, packet, id) ?? -1;
      const sent = sentAt.get(sequence);
      if (sent === undefined) continue;
      sentAt.delete(sequence);
      rttsMs.push(now - sent);
      options.onReply?.(now - sent);
      if (rttsMs.length === count) complete.abort();
    }
  });
  try {
    for (let sequence = 0; sequence < count; sequence++) {
      if (sequence > 0) await delay(intervalMs, signal);
      sentAt.set(sequence, performance.now());
      trySend(fd, encodeEchoRequest(family, id, sequence));
    }
    await waitAtMost(timeoutMs, complete.signal, signal);
    return { sent: count, received: rttsMs.length, rttsMs };
  } finally {
    watch[Symbol.dispose]();
    closeFd(fd);
  }
}

/** A socket in the calling thread's network namespace, for echo with one address; the caller closes it. */
export function openEcho(
  family: Family,
  source: string | undefined,
  target: string,
  kind: "raw" | "ping" = "raw",
): number {
  const type = kind === "raw" ? SOCK_RAW : SOCK_DGRAM;
  const fd =
    family === 4 ? openSocket(AF_INET, type, IPPROTO_ICMP) : openSocket(AF_INET6, type, IPPROTO_ICMPV6);
  try {
    if (source !== undefined) bindSocket(fd, socketAddress(source));
    connectSocket(fd, socketAddress(target));
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/** struct sockaddr_in or sockaddr_in6, port 0. */
export function socketAddress(address: string): Buffer {
  const bytes = ipBytes(address);
  const sockaddr = Buffer.alloc(bytes.length === 4 ? 16 : 28);
  sockaddr.writeUInt16LE(bytes.length === 4 ? AF_INET : AF_INET6, 0);
  sockaddr.set(bytes, bytes.length === 4 ? 4 : 8);
  return sockaddr;
}

/** Type, code, checksum, identifier, sequence number and 24 bytes of data. The kernel fills in the checksum of ICMPv6. */
export function encodeEchoRequest(family: Family, id: number, sequence: number): Buffer {
  const message = Buffer.alloc(32);
  message.writeUInt8(ECHO[family].request, 0);
  message.writeUInt16BE(id, 4);
  message.writeUInt16BE(sequence, 6);
  for (let offset = 8; offset < message.length; offset++) message.writeUInt8(offset, offset);
  if (family === 4) message.writeUInt16BE(internetChecksum(message), 2);
  return message;
}

/** The sequence number of a reply with our identifier. A raw IPv4 socket delivers the IP header too, others don't. */
export function decodeEchoReply(
  family: Family,
  packet: Buffer,
  id: number | "any",
  header: "raw" | "without-header" = "raw",
): number | undefined {
  const length = family === 4 && header === "raw" ? ((packet[0] ?? 0) & 0x0f) * 4 : 0;
  const message = packet.subarray(length);
  if (message.length < 8 || message[0] !== ECHO[family].reply) return undefined;
  if (id !== "any" && message.readUInt16BE(4) !== id) return undefined;
  return message.readUInt16BE(6);
}

/** RFC 1071. */
export function internetChecksum(bytes: Buffer): number {
  let sum = 0;
  for (let offset = 0; offset < bytes.length; offset += 2)
    sum += offset + 1 < bytes.length ? bytes.readUInt16BE(offset) : bytes.readUInt8(offset) << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** Sends; a device or route that is not there (yet) loses the packet like any other. */
function trySend(fd: number, message: Buffer): boolean {
  try {
    sendSync(fd, message);
    return true;
  } catch {
    return false;
  }
}

/** What waits to be read. An ICMP error for an earlier request, which the kernel reports here, ends the list. */
export function* packetsOf(fd: number): Generator<Buffer> {
  const buffer = Buffer.alloc(2048);
  try {
    for (let length = receive(fd, buffer); length !== undefined; length = receive(fd, buffer))
      yield buffer.subarray(0, length);
  } catch (error) {
    if (!(error instanceof NsmError)) throw error;
  }
}

async function waitAtMost(ms: number, done: AbortSignal, signal: AbortSignal | undefined): Promise<void> {
  if (done.aborted) return;
  try {
    await delay(ms, signal === undefined ? done : AbortSignal.any([done, signal]));
  } catch (error) {
    if (!done.aborted) throw error;
  }
}
