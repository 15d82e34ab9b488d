/**
 * One question over https to somebody who has to show first who it is: nothing is said before that, and what it answers is bounded in
 * size.
 */
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { request } from "node:https";
import type { RequestOptions } from "node:https";
import { isIP } from "node:net";
import { TLSSocket } from "node:tls";
import type { ConnectionOptions } from "node:tls";
import { chainOf } from "./grpc/tls.ts";

export interface HttpsQuestion {
  /** Where it is: a name or an address without brackets. */
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** With it the question is a POST. */
  readonly body?: string;
  /** Sees who is there, as it came (DER, leaf first). What it throws is thrown, and nothing was said. */
  readonly check: (chain: readonly Uint8Array[]) => void;
  /** OpenSSL verifies the other side for this name first, by the system's roots or these (PEM). Undefined: only `check` does. */
  readonly web?: { readonly name: string; readonly roots?: string | undefined };
  /** What this side shows of itself (PEM); nothing unless told. */
  readonly own?: { readonly key: string; readonly cert: string };
  /** Longest wait for the end of the handshake; as long as the signal lets it unless told. */
  readonly connectMs?: number;
  /** Of the answer's body. */
  readonly maxBytes: number;
  readonly signal: AbortSignal;
}

export interface HttpsAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Throws what `check` throws, the signal's reason, or an Error that says what happened to the connection or the answer. */
export function askOverHttps(question: HttpsQuestion): Promise<HttpsAnswer> {
  const { host, port, path, headers, body, check, web, own, connectMs, maxBytes, signal } = question;
  const name = web?.name ?? "";
  const { promise, resolve, reject } = Promise.withResolvers<HttpsAnswer>();
  const options: RequestOptions & Pick<ConnectionOptions, "ALPNProtocols"> = {
    host,
    port,
    path,
    method: body === undefined ? "GET" : "POST",
    headers: { ...headers, ...(body !== undefined && { "content-length": Buffer.byteLength(body) }) },
    agent: false,
    servername: isIP(name) === 0 ? name : "",
    ALPNProtocols: ["http/1.1"],
    minVersion: "TLSv1.2",
    rejectUnauthorized: web !== undefined,
    ...(web?.roots !== undefined && { ca: web.roots }),
    ...own,
  };
  const asking = request(options);
  const tooLate = () => asking.destroy(new Error(`no connection within ${connectMs} ms`));
  const timer = connectMs === undefined ? undefined : setTimeout(tooLate, connectMs);
  const onAbort = () =>
    asking.destroy(signal.reason instanceof Error ? signal.reason : new Error("given up"));
  signal.addEventListener("abort", onAbort, { once: true });
  asking.on("error", reject); // stays for the connection's life
  asking.once("close", () => reject(new Error("the connection was closed")));
  asking.once("socket", (socket) => {
    // The request has not left: that begins with its end.
    socket.once("secureConnect", () => {
      clearTimeout(timer);
      try {
        if (!(socket instanceof TLSSocket)) throw new TypeError("https without TLS");
        check(chainOf(socket));
        asking.end(body);
      } catch (error) {
        reject(error);
        asking.destroy();
      }
    });
  });
  asking.once("response", (response) => {
    const { statusCode: status = 0, headers: given } = response;
    readAll(response, maxBytes).then((bytes) => resolve({ status, headers: given, body: bytes }), reject);
  });
  if (signal.aborted) onAbort();
  return promise.finally(() => {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
    asking.destroy();
  });
}

async function readAll(response: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of response) {
    if (!Buffer.isBuffer(part)) continue;
    length += part.length;
    if (length > maxBytes) throw new Error(`its answer has more than ${maxBytes} bytes`);
    parts.push(part);
  }
  if (!response.complete) throw new Error("its answer was cut off");
  return Buffer.concat(parts);
}
