/** What a resolver remembers of the servers that it asks. */
import type { Clock } from "../clock.ts";
import type { Query } from "./message.ts";

/** After that a server that did not answer gets another chance. */
const SUSPECTED_FOR_MS = 30_000;

/** Which server is being asked what. */
export interface Asking {
  enter(query: Query, server: string): Disposable;
  has(query: Query, server: string): boolean;
}

export function createAsking(): Asking {
  const counts = new Map<string, number>();
  const keyFor = ({ name, type }: Query, server: string) => `${server} ${type} ${name.toLowerCase()}`;
  return {
    enter(query, server) {
      const key = keyFor(query, server);
      counts.set(key, (counts.get(key) ?? 0) + 1);
      return {
        [Symbol.dispose]() {
          const left = (counts.get(key) ?? 1) - 1;
          if (left === 0) counts.delete(key);
          else counts.set(key, left);
        },
      };
    },
    // Programs of this host come from its loopback address, and so does a server there: it cannot be told from them.
    has: (query, server) => !isLoopback(server) && counts.has(keyFor(query, server)),
  };
}

/** Servers that were asked and did not answer in time, lately: they are still asked, but what they would have said is not waited for. */
export interface Suspects {
  add(server: string): void;
  clear(server: string): void;
  has(server: string): boolean;
}

export function createSuspects(clock: Clock): Suspects {
  const untilMs = new Map<string, number>();
  return {
    add: (server) => void untilMs.set(server, clock.monotonic() + SUSPECTED_FOR_MS),
    clear: (server) => void untilMs.delete(server),
    has: (server) => (untilMs.get(server) ?? -Infinity) > clock.monotonic(),
  };
}

/** 127.0.0.0/8, `::1`, and the former as IPv6. */
export function isLoopback(address: string): boolean {
  return /^(?:::ffff:)?127\./i.test(address) || address === "::1";
}
