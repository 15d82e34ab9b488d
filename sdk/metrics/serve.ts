/**
 * The HTTP side of metrics: GET /metrics and GET /healthz, and nothing else. Whoever reaches the address may read; what is there
 * holds no secret, and the address is off unless it is set.
 */
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { formatAddress, parseAddress } from "../grpc/address.ts";
import { openListener } from "../grpc/listener.ts";
import type { Logger } from "../log.ts";
import { expose } from "./expose.ts";
import type { Exposition } from "./expose.ts";
import { meters } from "./meters.ts";
import { trackProcess } from "./process.ts";

/** A scraper has one connection; one more is closed at once. */
const MAX_CONNECTIONS = 32;
const TIMEOUT_MS = 5000;
const MAX_HEADER_BYTES = 8192;
/** Of a unix socket: its user and group. */
const SOCKET_MODE = 0o660;

export interface MetricsOptions {
  /** `tcp://host:port` or `unix:///path`. */
  readonly listenOn: string;
  /** The daemon's name, a label of every series. */
  readonly role: string;
  readonly version: string;
  readonly log: Logger;
}

export interface MetricsServer extends AsyncDisposable {
  /** With the port that was really taken. */
  readonly address: string;
  /** From now on /healthz answers 200 instead of 503. */
  ready(): void;
}

/** Throws what `parseAddress` and `openListener` throw: ALREADY_EXISTS `address-in-use` when somebody listens there. */
export async function openMetrics(options: MetricsOptions): Promise<MetricsServer> {
  const { log, role, version } = options;
  await using stack = new AsyncDisposableStack();
  const exposition = stack.use(
    await expose(Object.values(meters), {
      role,
      onFault: ({ name }, err) => log.warn({ err, metric: name }, "a metric cannot be read"),
    }),
  );
  stack.use(trackProcess(version));
  let isReady = false;
  const server = createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: TIMEOUT_MS,
      requestTimeout: TIMEOUT_MS,
      keepAliveTimeout: 60_000,
      connectionsCheckingInterval: 1000,
    },
    (request, response) => {
      answer(request, response, exposition, () => isReady).catch((err: unknown) => {
        log.error({ err }, "metrics cannot be read");
        response.destroy();
      });
    },
  );
  const sockets = new Set<Socket>();
  stack.defer(() => {
    for (const socket of sockets) socket.destroy();
    closeServer(server);
  });
  const address = parseAddress(options.listenOn);
  const listener = stack.use(
    await openListener(address, SOCKET_MODE, (socket) => {
      if (sockets.size >= MAX_CONNECTIONS) {
        socket.destroy();
        return;
      }
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
      socket.on("error", () => undefined); // it closes, and that is all there is to do
      server.emit("connection", socket);
    }),
  );
  const resources = stack.move();
  log.info({ address: formatAddress(listener.address) }, "metrics served");
  return {
    address: formatAddress(listener.address),
    ready: () => (isReady = true),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** It never listened itself: this ends the interval that looks for slow connections. */
function closeServer(server: Server): void {
  server.close(() => undefined);
  server.closeAllConnections();
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  exposition: Exposition,
  isReady: () => boolean,
): Promise<void> {
  response.setHeader("Cache-Control", "no-store");
  response.setHeader("X-Content-Type-Options", "nosniff");
  const [path] = (request.url ?? "").split("?");
  if (path !== "/metrics" && path !== "/healthz")
    return end(response, 404, "there are /metrics and /healthz\n");
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.setHeader("Allow", "GET, HEAD");
    return end(response, 405, "only GET and HEAD\n");
  }
  if (path === "/healthz") return end(response, isReady() ? 200 : 503, isReady() ? "ok\n" : "starting\n");
  const page = await exposition.page();
  end(response, 200, page, exposition.contentType);
}

function end(
  response: ServerResponse,
  status: number,
  text: string,
  type = "text/plain; charset=utf-8",
): void {
  response.writeHead(status, { "Content-Type": type, "Content-Length": Buffer.byteLength(text) });
  response.end(response.req.method === "HEAD" ? undefined : text);
}
