/** A UDP prober between namespaces, all in this process: sockets are opened inside, and read by the event loop. */
import { createSocket } from "node:dgram";
import type { Socket } from "node:dgram";
import { once } from "node:events";
import { isIPv6 } from "node:net";
import { bindSocket, openSocket, setSocketOption } from "../../sdk/native.ts";
import type { NamedNamespace } from "./netns.ts";

type Inside = Pick<NamedNamespace, "inside">;

const SOCK_DGRAM = 2;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;

/** Answers every datagram with itself. */
export interface Echo extends Disposable {
  readonly port: number;
  readonly received: number;
}

export function startEcho(ns: Inside, address: string, port = 0): Echo {
  const socket = bindUdp(ns, address, port);
  let received = 0;
  socket.on("message", (bytes, from) => {
    received++;
    socket.send(bytes, from.port, from.address);
  });
  return {
    port: socket.address().port,
    get received() {
      return received;
    },
    [Symbol.dispose]: () => socket.close(),
  };
}

/** Round trips of one datagram each; how many of them came back within `timeoutMs`. */
export async function probe(
  from: Inside,
  source: string,
  target: string,
  port: number,
  options: { count?: number; size?: number; timeoutMs?: number } = {},
): Promise<number> {
  const { count = 3, size = 64, timeoutMs = 1000 } = options;
  const socket = bindUdp(from, source);
  try {
    let returned = 0;
    for (let i = 0; i < count; i++) {
      const answer = once(socket, "message", { signal: AbortSignal.timeout(timeoutMs) });
      socket.send(Buffer.alloc(size, i), port, target);
      returned += await answer.then(
        () => 1,
        () => 0,
      );
    }
    return returned;
  } finally {
    socket.close();
  }
}

/** True once a datagram came back: the first of a tunnel may be lost to its handshake. */
export async function reaches(from: Inside, source: string, to: Inside, target: string): Promise<boolean> {
  using echo = startEcho(to, target);
  for (let tries = 0; tries < 10; tries++)
    if ((await probe(from, source, target, echo.port, { count: 1, timeoutMs: 500 })) === 1) return true;
  return false;
}

/** Numbered datagrams at a steady pace until stopped; `lost` counts those that never came back. */
export function startStream(
  from: Inside,
  source: string,
  target: string,
  port: number,
  intervalMs = 2,
): { stop(): Promise<{ sent: number; lost: number }> } {
  const socket = bindUdp(from, source);
  const missing = new Set<number>();
  let sent = 0;
  socket.on("message", (bytes) => missing.delete(bytes.readUInt32LE()));
  const timer = setInterval(() => {
    const bytes = Buffer.alloc(200);
    bytes.writeUInt32LE(++sent);
    missing.add(sent);
    socket.send(bytes, port, target);
  }, intervalMs);
  return {
    async stop() {
      clearInterval(timer);
      for (let tries = 0; tries < 100 && missing.size > 0; tries++)
        await new Promise((resolve) => setTimeout(resolve, 10));
      socket.close();
      return { sent, lost: missing.size };
    },
  };
}

export function bindUdp(ns: Inside, address: string, port = 0): Socket {
  const v6 = isIPv6(address);
  const fd = ns.inside(() => {
    const fd = openSocket(v6 ? 10 : 2, SOCK_DGRAM, 0);
    if (v6) setSocketOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    bindSocket(fd, socketAddress(address, port));
    return fd;
  });
  const socket = createSocket(v6 ? "udp6" : "udp4");
  socket.on("error", () => undefined);
  // With a descriptor it listens at once.
  socket.bind({ fd });
  return socket;
}

/** struct sockaddr_in, sockaddr_in6 */
export function socketAddress(address: string, port: number): Buffer {
  if (!isIPv6(address)) {
    const bytes = Buffer.alloc(16);
    bytes.writeUInt16LE(2, 0);
    bytes.writeUInt16BE(port, 2);
    bytes.set(address.split(".").map(Number), 4);
    return bytes;
  }
  const bytes = Buffer.alloc(28);
  bytes.writeUInt16LE(10, 0);
  bytes.writeUInt16BE(port, 2);
  const [head = "", tail = ""] = address.split("::");
  const groups = (text: string) =>
    text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16));
  groups(head).forEach((group, i) => bytes.writeUInt16BE(group, 8 + 2 * i));
  groups(tail).forEach((group, i, all) => bytes.writeUInt16BE(group, 24 - 2 * (all.length - i)));
  return bytes;
}
