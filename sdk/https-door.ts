/** HTTP/1.1 for strangers, on TLS connections that somebody else accepted: one small question a connection, in bounded time. */
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { Clock } from "./clock.ts";
import { NsmError, messageOf } from "./errors.ts";
import type { Logger } from "./log.ts";

const MAX_CONNECTIONS = 32;
/** From the end of the handshake to the end of the answer. */
const CONNECTION_MS = 20_000;
const MAX_HEADER_BYTES = 8 * 1024;
/** A bundle of 1 MiB at most, inside JSON. */
const MAX_BODY_BYTES = 2 * 1024 * 1024;

export interface HttpAnswer {
  readonly status: number;
  /** JSON. */
  readonly body: string;
}

export interface HttpQuestion {
  readonly body: string;
  /** Aborted when the asker leaves, its time is over or the door closes. */
  readonly signal: AbortSignal;
}

/** `GET /bundle` -> who answers it. What it throws is answered with 500 and logged. */
export type Routes = Readonly<Record<string, (question: HttpQuestion) => HttpAnswer | Promise<HttpAnswer>>>;

export interface HttpsDoor extends Disposable {
  /** Takes a connection after its handshake. */
  accept(socket: TLSSocket): void;
}

export function createHttpsDoor(
  routes: Routes,
  { clock, log }: { readonly clock: Clock; readonly log: Logger },
): HttpsDoor {
  const open = new Map<Socket, AbortController>();
  const server = createServer({ maxHeaderSize: MAX_HEADER_BYTES }, (request, response) => {
    const signal = open.get(request.socket)?.signal ?? AbortSignal.abort();
    void answer(routes, request, signal)
      .catch((err: unknown) => {
        log.warn({ err, path: request.url }, "question over https failed");
        return failure(500, messageOf(err));
      })
      .then((given) => send(response, given));
  });
  server.maxRequestsPerSocket = 1;
  return {
    accept(socket) {
      if (open.size >= MAX_CONNECTIONS) {
        socket.destroy();
        return;
      }
      const left = new AbortController();
      const timer = clock.timer(CONNECTION_MS, () => socket.destroy());
      open.set(socket, left);
      socket.once("close", () => {
        timer[Symbol.dispose]();
        open.delete(socket);
        left.abort(new NsmError("CANCELLED", "caller-left", "the asker left"));
      });
      server.emit("connection", socket);
    },
    [Symbol.dispose]() {
      for (const socket of open.keys()) socket.destroy();
    },
  };
}

/** An error as these doors tell it. */
export function failure(status: number, message: string, reason = "failed"): HttpAnswer {
  return { status, body: JSON.stringify({ reason, message }) };
}

async function answer(routes: Routes, request: IncomingMessage, signal: AbortSignal): Promise<HttpAnswer> {
  const path = request.url ?? "";
  const route = Object.hasOwn(routes, `${request.method} ${path}`)
    ? routes[`${request.method} ${path}`]
    : undefined;
  if (route === undefined) return failure(404, `nobody answers ${request.method} ${path} here`, "no-route");
  const body = await readBody(request);
  if (body === undefined) return failure(413, `more than ${MAX_BODY_BYTES} bytes`, "limit");
  return await route({ body, signal });
}

/** Undefined when it is too large. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request) {
    if (!Buffer.isBuffer(part)) continue;
    length += part.length;
    if (length > MAX_BODY_BYTES) return undefined;
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

function send(response: ServerResponse, { status, body }: HttpAnswer): void {
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    connection: "close",
  });
  response.end(body);
}
