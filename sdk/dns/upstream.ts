/**
 * Asks name servers: by UDP, again when a datagram was lost, by TCP when an answer does not fit (RFC 1035 §4.2, RFC 7766).
 *
 * Each exchange has a socket, a port and an id of its own (RFC 5452 §9), and there are only so many at once.
 */
import { randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { connect } from "node:net";
import type { Clock } from "../clock.ts";
import { NsmError } from "../errors.ts";
import { isAnswerTo, isTruncated, withId } from "./message.ts";

/** At one time, to one server and in all: servers that hang do not use up what others need. */
const MOST_PER_SERVER = 256;
const MOST_IN_ALL = 768;
/** A datagram is sent again after this long, and after twice that. */
const RESEND_AFTER_MS = 1000;

export interface Upstreams {
  /**
   * The server's answer to a query, which must be one for it. Rejects with the signal's reason, UNAVAILABLE
   * `dns-server-failed`, or RESOURCE_EXHAUSTED `dns-busy` when the server has too many open questions.
   */
  exchange(server: string, query: Buffer, signal: AbortSignal): Promise<Buffer>;
}

export interface UpstreamOptions {
  readonly clock: Clock;
  /** Default 53. */
  readonly port?: number;
}

export function createUpstreams({ clock, port = 53 }: UpstreamOptions): Upstreams {
  const open = new Map<string, number>();
  let total = 0;
  return {
    async exchange(server, query, signal) {
      const before = open.get(server) ?? 0;
      if (before >= MOST_PER_SERVER || total >= MOST_IN_ALL)
        throw new NsmError("RESOURCE_EXHAUSTED", "dns-busy", `${before} questions to ${server} are open`);
      open.set(server, before + 1);
      total++;
      try {
        const asked = withId(query, randomInt(0x10000));
        const answer = await askByUdp(server, port, asked, clock, signal);
        return isTruncated(answer) ? await askByTcp(server, port, asked, signal) : answer;
      } finally {
        total--;
        const after = (open.get(server) ?? 1) - 1;
        if (after === 0) open.delete(server);
        else open.set(server, after);
      }
    },
  };
}

/** Connected, so that the kernel drops datagrams of others and tells when nobody listens. */
function askByUdp(
  server: string,
  port: number,
  query: Buffer,
  clock: Clock,
  signal: AbortSignal,
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(server.includes(":") ? "udp6" : "udp4");
    let isSettled = false;
    let resend: Disposable | undefined;
    const settle = (then: () => void) => {
      if (isSettled) return;
      isSettled = true;
      resend?.[Symbol.dispose]();
      signal.removeEventListener("abort", onAbort);
      socket.close();
      then();
    };
    const onAbort = () => settle(() => reject(reasonOf(signal)));
    const send = (afterMs: number) => {
      if (isSettled) return;
      socket.send(query);
      resend = clock.timer(afterMs, () => send(afterMs * 2));
    };
    signal.addEventListener("abort", onAbort, { once: true });
    socket.on("error", (error) => settle(() => reject(failed(server, error))));
    socket.on("message", (bytes) => {
      if (isAnswerTo(bytes, query)) settle(() => resolve(bytes));
    });
    socket.connect(port, server, () => send(RESEND_AFTER_MS));
    if (signal.aborted) onAbort();
  });
}

function askByTcp(server: string, port: number, query: Buffer, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: server, port, noDelay: true });
    let received: Buffer[] = [];
    let bytes = 0;
    let expected = 2;
    const settle = (then: () => void) => {
      signal.removeEventListener("abort", onAbort);
      socket.destroy();
      then();
    };
    const onAbort = () => settle(() => reject(reasonOf(signal)));
    signal.addEventListener("abort", onAbort, { once: true });
    socket.on("connect", () => socket.write(framed(query)));
    socket.on("error", (error) => settle(() => reject(failed(server, error))));
    socket.on("end", () => settle(() => reject(failed(server, new Error("it hung up")))));
    socket.on("data", (chunk) => {
      received.push(chunk);
      bytes += chunk.length;
      // Looked at when it may be whole: a server that sends it byte by byte does not make us copy it as often.
      if (bytes < expected) return;
      received = [Buffer.concat(received)];
      const [answer] = unframed(received[0] ?? Buffer.alloc(0));
      expected = 2 + (received[0]?.readUInt16BE(0) ?? 0);
      if (answer === undefined) return;
      if (isAnswerTo(answer, query)) settle(() => resolve(answer));
      else settle(() => reject(failed(server, new Error("it answered something else"))));
    });
    if (signal.aborted) onAbort();
  });
}

/** With its length before it (RFC 1035 §4.2.2). */
export function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

/** The first message, if all of it is there, and what follows it. */
export function unframed(bytes: Buffer): readonly [message: Buffer | undefined, rest: Buffer] {
  if (bytes.length < 2) return [undefined, bytes];
  const end = 2 + bytes.readUInt16BE(0);
  return bytes.length < end ? [undefined, bytes] : [bytes.subarray(2, end), bytes.subarray(end)];
}

function reasonOf(signal: AbortSignal): Error {
  return signal.reason instanceof Error ? signal.reason : new Error("aborted");
}

function failed(server: string, cause: Error): NsmError {
  const message = `name server ${server}: ${cause.message}`;
  return new NsmError("UNAVAILABLE", "dns-server-failed", message, cause);
}
