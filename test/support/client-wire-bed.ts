/** A client's wire with a clock that stands still, between a manager and a data path that a test plays. */
import { expect, vi } from "vitest";
import type { Connection } from "../../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import type { PathNews } from "../../nsc/data-path.ts";
import { createWire } from "../../nsc/wire.ts";
import type { NsmError } from "../../sdk/errors.ts";
import { createLogger } from "../../sdk/log.ts";
import { WISH, answered } from "./client-wire.ts";
import { createFakeClock } from "./fake-clock.ts";

/** A manager that answers with a path of two hops and leases of 100 s. */
export function buildWire(adopted?: Connection, firstFailure?: NsmError) {
  const clock = createFakeClock();
  const requests: NetworkServiceRequest[] = [];
  const closes: Connection[] = [];
  const ups: Connection[] = [];
  const watched = { begun: 0, ended: 0 };
  const watches: (PathNews & { hasAnswered: boolean })[] = [];
  let failure = firstFailure;
  let hangs = false;
  let aborted: unknown;
  let endpoint = "nse-1";
  const lines: string[] = [];
  const log = createLogger("client", "INFO", { write: (line) => void lines.push(line) });
  const wire = createWire(
    WISH,
    {
      manager: {
        request(request, signal) {
          requests.push(request);
          if (hangs)
            return new Promise((_, reject) => {
              const onAbort = () => {
                aborted = signal.reason;
                reject(new Error("aborted"));
              };
              signal.addEventListener("abort", onAbort, { once: true });
            });
          return failure
            ? Promise.reject(failure)
            : Promise.resolve(answered(request, clock.now(), endpoint));
        },
        close(connection) {
          closes.push(connection);
          return Promise.resolve();
        },
        // eslint-disable-next-line require-yield
        async *monitor() {
          await Promise.resolve();
        },
      },
      clock,
      log,
      requestTimeoutMs: 1000,
      random: () => 0,
      onUp: (connection) => ups.push(connection),
      watch: (_, news, hasAnswered) => {
        watched.begun++;
        watches.push({ ...news, hasAnswered });
        return { [Symbol.dispose]: () => void watched.ended++ };
      },
    },
    adopted,
  );
  const stop = new AbortController();
  const running = wire.run(stop.signal);
  return {
    clock,
    wire,
    requests,
    closes,
    ups,
    watched,
    watches,
    /** From now on Requests hang; the answer makes later ones succeed. */
    hang: () => {
      hangs = true;
      return () => {
        hangs = false;
      };
    },
    /** Later Requests are served by this endpoint. */
    serveBy: (name: string) => {
      endpoint = name;
    },
    /** How many times the client has logged that. */
    said: (phrase: string) => lines.filter((line) => line.includes(`"msg":"${phrase}"`)).length,
    /** Why the last Request that hung was aborted. */
    aborted: () => aborted,
    last: () => requests.at(-1)?.connection,
    fail: (error: NsmError) => {
      failure = error;
    },
    recover: () => {
      failure = undefined;
    },
    count: (n: number) => vi.waitFor(() => expect(requests).toHaveLength(n)),
    /** Waits for so many requests through the pauses after failures. */
    countTries: async (n: number) => {
      for (let i = 0; i < 100 && requests.length < n; i++) await clock.advance(50);
      expect(requests).toHaveLength(n);
    },
    end: async () => {
      stop.abort();
      await running;
    },
  };
}
