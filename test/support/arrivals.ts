/** When packets come through: numbered datagrams at a steady pace and back, with the time of each arrival. */
import type { NamedNamespace } from "./netns.ts";
import { bindUdp, startEcho } from "./udp.ts";

const INTERVAL_MS = 10;

export interface Arrivals extends Disposable {
  /** Milliseconds from `sinceMs` (performance.now()) to the first datagram that was sent and came back after it. Throws after `withinMs`. */
  firstAfter(sinceMs: number, withinMs: number): Promise<number>;
  /** How many came back of those that were sent since. */
  countSince(sinceMs: number): number;
}

/** From an address of one namespace to an address of another, which need not be there all the time. */
export function startArrivals(
  from: NamedNamespace,
  source: string,
  to: NamedNamespace,
  target: string,
): Arrivals {
  const echo = startEcho(to, target);
  const socket = bindUdp(from, source);
  const sentMs: number[] = [];
  /** By number, in the order of arrival. */
  const arrived: { readonly sentMs: number; readonly atMs: number }[] = [];
  socket.on("message", (bytes) => {
    arrived.push({ sentMs: sentMs[bytes.readUInt32LE()] ?? 0, atMs: performance.now() });
  });
  const timer = setInterval(() => {
    const bytes = Buffer.alloc(64);
    bytes.writeUInt32LE(sentMs.push(performance.now()) - 1);
    socket.send(bytes, echo.port, target, () => undefined); // without a route it is lost like any other
  }, INTERVAL_MS);
  return {
    async firstAfter(sinceMs, withinMs) {
      for (const end = performance.now() + withinMs; performance.now() < end;) {
        const found = arrived.find((each) => each.sentMs >= sinceMs);
        if (found !== undefined) return found.atMs - sinceMs;
        await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
      }
      throw new Error(`nothing came through to ${target} within ${withinMs} ms`);
    },
    countSince: (sinceMs) => arrived.filter((each) => each.sentMs >= sinceMs).length,
    [Symbol.dispose]() {
      clearInterval(timer);
      socket.close();
      echo[Symbol.dispose]();
    },
  };
}
