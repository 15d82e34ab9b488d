/**
 * `nsm _probe reflect|send|listen|connect`: one end of a measurement over a wire, a process in the namespace of that end.
 *
 * The sender numbers its datagrams and sends one each millisecond; the reflector gives them back with its name. Each is told
 * what to do on its command line, says what happens as lines of JSON, and ends when its standard input does.
 */
import { createSocket } from "node:dgram";
import type { Socket } from "node:dgram";
import { once } from "node:events";
import { isIPv6 } from "node:net";
import { constants, setPriority } from "node:os";
import { delay } from "../../sdk/clock.ts";
import { NsmError, errnoOf } from "../../sdk/errors.ts";
import { createTally } from "./tally.ts";
import { isGreeted, openListeners } from "./tcp.ts";
import type { ProbeReport } from "./tally.ts";

export const PROBE_PORT = 44_717;
const INTERVAL_MS = 1;
/** How long probes may be on their way after the last one was sent. */
const STRAGGLERS_MS = 300;
/** The most that fits without privileges: half a second of probes, should this process have to wait for a processor. */
const RECEIVE_BUFFER = 212_992;

/** A line of a sender or reflector. */
export type ProbeNews =
  | { readonly event: "ready" }
  /** The first probe that came back, and the first from somebody else than the one before. */
  | { readonly event: "arrival"; readonly from: string; readonly atMs: number }
  | { readonly event: "report"; readonly report: ProbeReport }
  /** Whether a TCP connection was greeted. */
  | { readonly event: "connected"; readonly greeted: boolean };

/**
 * `reflect <name> <address>`: at any address of its family; `send <address>`; `listen <address> <port>…`. Resolves when the input
 * has ended. `connect <address> <port>`.
 */
export async function runProbe(words: readonly string[]): Promise<void> {
  const [role, first = "", second = "", ...more] = words;
  const stop = once(process.stdin.resume(), "end");
  beFirst();
  if (role === "reflect") await reflect(first, isIPv6(second), stop);
  else if (role === "send") await send(first, stop);
  else if (role === "listen") await listen(first, [second, ...more].map(Number), stop);
  else if (role === "connect") await connectOnce(first, Number(second));
  else
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-probe",
      `reflect, send, listen or connect, not ${JSON.stringify(role)}`,
    );
}

/** Milliseconds since boot, the same for all processes of the machine. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000;
}

async function listen(address: string, ports: readonly number[], stop: Promise<unknown>): Promise<void> {
  using listeners = await openListeners(address, ports);
  void listeners;
  say({ event: "ready" });
  await stop;
}

async function connectOnce(address: string, port: number): Promise<void> {
  say({ event: "ready" });
  say({ event: "connected", greeted: await isGreeted(address, port) });
}

async function reflect(name: string, v6: boolean, stop: Promise<unknown>): Promise<void> {
  const socket = await openUdp(v6, PROBE_PORT);
  const tag = Buffer.from(name);
  socket.on("message", (bytes, from) =>
    socket.send(Buffer.concat([bytes.subarray(0, 4), tag]), from.port, from.address, ignore),
  );
  say({ event: "ready" });
  await stop;
  socket.close();
}

async function send(address: string, stop: Promise<unknown>): Promise<void> {
  const tally = createTally();
  const socket = await openUdp(isIPv6(address), 0);
  socket.on("message", (bytes) => {
    const atMs = monotonicMs();
    const from = bytes.subarray(4).toString();
    if (tally.arrived(bytes.readUInt32LE(), from, atMs)) say({ event: "arrival", from, atMs });
  });
  say({ event: "ready" });
  const startMs = monotonicMs();
  let due = 0;
  const timer = setInterval(() => {
    // A timer that is late sends what was due meanwhile: a thousand a second whatever the machine does.
    for (const now = monotonicMs(); startMs + due * INTERVAL_MS <= now; due++) {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32LE(tally.sent(now));
      socket.send(bytes, PROBE_PORT, address, ignore);
    }
  }, INTERVAL_MS);
  await stop;
  clearInterval(timer);
  for (const end = monotonicMs() + STRAGGLERS_MS; tally.missing > 0 && monotonicMs() < end;) await delay(5);
  socket.close();
  say({ event: "report", report: tally.report() });
}

async function openUdp(v6: boolean, port: number): Promise<Socket> {
  const socket = createSocket({
    type: v6 ? "udp6" : "udp4",
    recvBufferSize: RECEIVE_BUFFER,
    lookup: (host, _options, callback) => callback(null, host, v6 ? 6 : 4), // only addresses are given
  });
  const listening = once(socket, "listening");
  socket.bind(port, v6 ? "::" : "0.0.0.0");
  await listening;
  return socket;
}

/** A probe that the kernel refuses (no route, no device) is lost like any other. */
function ignore(): void {}

function say(news: ProbeNews): void {
  process.stdout.write(`${JSON.stringify(news)}\n`);
}

/** A prober that waits for a processor would measure that. */
function beFirst(): void {
  try {
    setPriority(constants.priority.PRIORITY_HIGH);
  } catch (error) {
    if (!["EACCES", "EPERM"].includes(errnoOf(error) ?? "")) throw error;
  }
}
