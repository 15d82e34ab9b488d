/** HTTP/1.1 for strangers, on TLS connections that somebody else accepted: one small question a connection, in bounded time. */
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { Clock } from "./clock.ts";
import { NsmError } from "./errors.ts";
import { chainOf } from "./grpc/tls.ts";
import type { Logger } from "./log.ts";
import { createWaitingRoom, holderOf } from "./waiting-room.ts";

const MAX_CONNECTIONS = 32;
/** From the end of the handshake to the end of the question's head, and to the end of the answer. */
const HEAD_MS = 3000;
const CONNECTION_MS = 20_000;
const MAX_HEADER_BYTES = 8 * 1024;
/** A bundle of 1 MiB at most, inside JSON. */
const MAX_BODY_BYTES = 2 * 1024 * 1024;
const METHODS = ["GET", "POST"] as const;

export interface HttpAnswer {
  readonly status: number;
  /** JSON. */
  readonly body: string;
  /** With 405: the methods that there are. */
  readonly allow?: string;
}

export interface HttpQuestion {
  readonly body: string;
  /** The asker's certificates (DER, leaf first), which nobody has looked at; none for most. To be read once. */
  readonly chain: () => readonly Uint8Array[];
  /** Aborted when the asker leaves, its time is over or the door closes. */
  readonly signal: AbortSignal;
}

export type Answerer = (question: HttpQuestion) => HttpAnswer | Promise<HttpAnswer>;

/**
 * `GET /bundle`, or `GET *` for every other path -> who answers it; HEAD is answered as GET. What it throws is logged, and not told
 * to a stranger.
 */
export type Routes = Readonly<Record<string, Answerer>>;

export interface HttpsDoor extends Disposable {
  /** Takes a connection after its handshake. */
  accept(socket: TLSSocket): void;
}

/** Somebody at the door. */
interface Asker {
  readonly socket: TLSSocket;
  readonly left: AbortController;
  /** The head of the question has come. */
  hasAsked: boolean;
  /** The whole question has come, and is being answered. */
  isBusy: boolean;
}

export function createHttpsDoor(
  routes: Routes,
  { clock, log }: { readonly clock: Clock; readonly log: Logger },
): HttpsDoor {
  const open = new Map<Socket, Asker>();
  const room = createWaitingRoom(MAX_CONNECTIONS, clock);
  const server = createServer({ maxHeaderSize: MAX_HEADER_BYTES }, (request, response) => {
    const asker = open.get(request.socket);
    if (asker === undefined) return;
    asker.hasAsked = true;
    void answer(routes, request, asker)
      .catch((err: unknown) => {
        log.warn({ err, path: request.url }, "question over https failed");
        return failure(500, "internal error", "internal");
      })
      .then((given) => send(response, given));
  });
  server.maxRequestsPerSocket = 1;
  return {
    accept(socket) {
      const asker: Asker = { socket, left: new AbortController(), hasAsked: false, isBusy: false };
      const place = room.admit({
        holder: holderOf(socket.remoteAddress),
        isSilent: () => !asker.hasAsked,
        isBusy: () => asker.isBusy,
        dismiss: () => void socket.destroy(),
      });
      if (place === undefined) {
        socket.destroy();
        return;
      }
      const timers = [
        clock.timer(HEAD_MS, () => {
          if (!asker.hasAsked) socket.destroy();
        }),
        clock.timer(CONNECTION_MS, () => socket.destroy()),
      ];
      open.set(socket, asker);
      socket.once("close", () => {
        for (const timer of timers) timer[Symbol.dispose]();
        place[Symbol.dispose]();
        open.delete(socket);
        asker.left.abort(new NsmError("CANCELLED", "caller-left", "the asker left"));
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

async function answer(routes: Routes, request: IncomingMessage, asker: Asker): Promise<HttpAnswer> {
  const { method = "", url: path = "" } = request;
  const of = (word: string) => [`${word} ${path}`, `${word} *`].find((key) => Object.hasOwn(routes, key));
  const key = of(method === "HEAD" ? "GET" : method);
  const route = key === undefined ? undefined : routes[key];
  if (route === undefined) {
    const allowed = METHODS.filter((each) => of(each) !== undefined);
    return allowed.length === 0
      ? failure(404, `nobody answers ${method} ${path} here`, "no-route")
      : { ...failure(405, `${path} takes ${allowed.join(", ")}`, "no-route"), allow: allowed.join(", ") };
  }
  const body = await readBody(request);
  if (body === undefined) return failure(413, `more than ${MAX_BODY_BYTES} bytes`, "limit");
  asker.isBusy = true;
  try {
    return await route({ body, chain: () => chainOf(asker.socket), signal: asker.left.signal });
  } finally {
    asker.isBusy = false;
  }
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

function send(response: ServerResponse, { status, body, allow }: HttpAnswer): void {
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
    connection: "close",
    ...(allow !== undefined && { allow }),
  });
  response.end(body);
}
