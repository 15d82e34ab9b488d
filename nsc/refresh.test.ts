import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";
import { silentLogger } from "../sdk/log.ts";
import { WISH, answered } from "../test/support/client-wire.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { createWire, refreshDelay } from "./wire.ts";

test("the delay of a refresh is a fifth of the shortest lease, earlier by up to a fifth of that", () => {
  const connection = answered(create(NetworkServiceRequestSchema, { connection: {} }), 0);
  expect(refreshDelay(connection, 0, () => 0)).toBe(20_000);
  expect(refreshDelay(connection, 0, () => 1)).toBe(16_000);
  expect(refreshDelay(connection, 150_000, () => 0)).toBe(0);
  expect(refreshDelay(undefined, 0, () => 0)).toBe(0);
});

test("fifty wires of one start never refresh in a burst", async () => {
  const clock = createFakeClock();
  const refreshes: number[] = [];
  const stop = new AbortController();
  let seed = 1;
  const random = () => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  const running = Array.from({ length: 50 }, (_, i) => {
    const manager = {
      request(request: NetworkServiceRequest) {
        if (request.connection?.networkServiceEndpointName !== "") refreshes.push(clock.now());
        return Promise.resolve(answered(request, clock.now()));
      },
      close: () => Promise.resolve(),
      // eslint-disable-next-line require-yield
      async *monitor() {
        await Promise.resolve();
      },
    };
    const options = {
      manager,
      clock,
      log: silentLogger,
      requestTimeoutMs: 1000,
      random,
      onUp: () => undefined,
    };
    return createWire({ ...WISH, id: `client-${i}` }, options).run(stop.signal);
  });
  await clock.advance(200_000);
  stop.abort();
  await Promise.all(running);
  expect(refreshes.length).toBeGreaterThan(400);
  // A lease of 100 s: a refresh every 18 s on average, so 50 wires make 2.8 a second.
  const inSecond = (startMs: number) => refreshes.filter((at) => at >= startMs && at < startMs + 1000).length;
  const busiest = Math.max(...refreshes.map(inSecond));
  expect(busiest).toBeLessThanOrEqual(18);
});
