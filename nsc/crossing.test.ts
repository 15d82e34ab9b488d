import { clone } from "@bufbuild/protobuf";
import { describe, expect, test, vi } from "vitest";
import { ConnectionSchema, State } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import { silentLogger } from "../sdk/log.ts";
import { WISH, answered } from "../test/support/client-wire.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { createWire } from "./wire.ts";
import type { ClientWire } from "./wire.ts";

describe("DOWN that crosses an answer", () => {
  /** `during`: what is told while each Request is under way. */
  function buildCrossing(
    during: (answer: Connection, tell: (of: Connection) => void) => void,
    always = false,
  ) {
    const clock = createFakeClock();
    const states: (State | undefined)[] = [];
    const wire: ClientWire = createWire(WISH, {
      manager: {
        request(request) {
          states.push(request.connection?.state);
          const answer = answered(request, clock.now());
          const tell = (of: Connection): void => wire.tell("down", of);
          if (always || states.length === 1) during(answer, tell);
          return Promise.resolve(answer);
        },
        close: () => Promise.resolve(),
        // eslint-disable-next-line require-yield
        async *monitor() {
          await Promise.resolve();
        },
      },
      clock,
      log: silentLogger,
      requestTimeoutMs: 1000,
      random: () => 0,
      onUp: () => undefined,
    });
    const stop = new AbortController();
    const running = wire.run(stop.signal);
    const end = async () => {
      stop.abort();
      await running;
    };
    return { clock, states, end };
  }

  test("of the endpoint that answers is heeded at once", async () => {
    const { states, end } = buildCrossing((answer, tell) => tell(answer));
    await vi.waitFor(() => expect(states).toEqual([State.UP, State.RESELECT_REQUESTED]));
    await end();
  });

  test.for([
    ["of another endpoint", (of: Connection): void => void (of.networkServiceEndpointName = "nse-2")],
    ["of another client's wire", (of: Connection): void => void of.path?.pathSegments.splice(1, 1)],
  ] as const)("%s is no news", async ([, change]) => {
    const { states, end } = buildCrossing((answer, tell) => {
      const of = clone(ConnectionSchema, answer);
      change(of);
      tell(of);
    });
    await vi.waitFor(() => expect(states).toHaveLength(1));
    await new Promise((resolve) => setImmediate(resolve));
    expect(states).toHaveLength(1);
    await end();
  });

  test("time and again makes no storm of Requests", async () => {
    const { clock, states, end } = buildCrossing((answer, tell) => tell(answer), true);
    await vi.waitFor(() => expect(states).toHaveLength(2));
    await clock.advance(39);
    expect(states).toHaveLength(2);
    for (let i = 0; i < 100; i++) await clock.advance(100);
    expect(states.length).toBeGreaterThan(6);
    expect(states.length).toBeLessThan(20);
    await end();
  });
});
