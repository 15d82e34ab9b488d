/** The resolver's listeners on one address: UDP and TCP (RFC 1035 §4.2, RFC 7766). */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";
import type { Server, Socket } from "node:net";
import type { Logger } from "../log.ts";
import { forUdp } from "./message.ts";
import { isLoopback } from "./asking.ts";
import type { Resolver } from "./resolver.ts";
import { framed, unframed } from "./upstream.ts";

const MOST_CONNECTIONS = 64;
const CONNECTION_IDLE_MS = 10_000;
/** A question is never larger; what is left of a message is read no further. */
const MOST_QUERY_BYTES = 4096;
/** Answers that wait for somebody to read them. */
const MOST_UNREAD_BYTES = 1024 * 1024;

export interface DnsServerOptions {
  /** An address of this host. */
  readonly host: string;
  readonly port: number;
  readonly resolver: Resolver;
  readonly log: Logger;
}

/** Rejects with the system's error (EADDRINUSE, EACCES) when it cannot listen. */
export async function openDnsServer(
  options: DnsServerOptions,
): Promise<AsyncDisposable & { readonly port: number }> {
  await using stack = new AsyncDisposableStack();
  const port = await openUdp(options, stack);
  await openTcp({ ...options, port }, stack);
  const resources = stack.move();
  return { port, [Symbol.asyncDispose]: () => resources.disposeAsync() };
}

async function openUdp(options: DnsServerOptions, stack: AsyncDisposableStack): Promise<number> {
  const { host, port, resolver, log } = options;
  const socket = createSocket(host.includes(":") ? "udp6" : "udp4");
  let isOpen = true;
  stack.defer(() => {
    isOpen = false;
    socket.close();
  });
  socket.bind({ address: host, port, exclusive: true });
  await once(socket, "listening");
  socket.on("error", (err) => log.warn({ err }, "a datagram with a name's answer was not sent"));
  socket.on("message", (bytes, from) => {
    void resolver.answer(bytes, from.address, isOwn(from.address, host)).then((reply) => {
      if (reply === undefined || !isOpen) return;
      const { query } = reply;
      socket.send(query === undefined ? reply.bytes : forUdp(reply.bytes, query), from.port, from.address);
    });
  });
  return socket.address().port;
}

async function openTcp(options: DnsServerOptions, stack: AsyncDisposableStack): Promise<void> {
  const { host, port, log } = options;
  const connections = new Set<Socket>();
  const server = createServer((socket) => {
    connections.add(socket);
    socket.on("close", () => connections.delete(socket));
    serve(socket, options);
  });
  server.maxConnections = MOST_CONNECTIONS;
  stack.defer(() => {
    for (const socket of connections) socket.destroy();
    return closed(server);
  });
  server.listen({ host, port, exclusive: true });
  await once(server, "listening");
  server.on("error", (err) => log.warn({ err }, "a connection for names was not accepted"));
}

async function closed(server: Server): Promise<void> {
  if (!server.listening) return;
  const end = once(server, "close");
  server.close();
  await end;
}

/** Questions of one connection are answered as they are ready; the ids tell answers apart (RFC 7766 §6.2.1.1). */
function serve(socket: Socket, { resolver, host }: DnsServerOptions): void {
  const from = socket.remoteAddress ?? "";
  let received: Buffer = Buffer.alloc(0);
  socket.setTimeout(CONNECTION_IDLE_MS, () => socket.destroy());
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk) => {
    received = Buffer.concat([received, chunk]);
    for (;;) {
      const [message, rest] = unframed(received);
      if (message === undefined) break;
      received = rest;
      void resolver.answer(Buffer.from(message), from, isOwn(from, host)).then((reply) => {
        if (reply !== undefined && socket.writable) socket.write(framed(reply.bytes));
        if (socket.writableLength > MOST_UNREAD_BYTES) socket.destroy();
      });
    }
    if (received.length > MOST_QUERY_BYTES) socket.destroy();
  });
}

function isOwn(from: string, host: string): boolean {
  return isLoopback(from) || from === host;
}
