/**
 * A WireGuard wire while the clocks of its nodes are set.
 *
 * Sessions and timers follow the monotonic clock and feel nothing. But each handshake carries the wall clock of who begins it, and the
 * other side refuses one that is not later than the latest it has taken from that key (WireGuard whitepaper, 5.1: no replays). A node
 * set back by an hour would be refused for an hour. When the session ends after 180 s (RejectAfterTime), the forwarders make the peers
 * anew, which forgets those times.
 */
import { equal, ok } from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { probe, startEcho, startStream } from "../../support/udp.ts";
import { createSuite, note } from "./harness.ts";
import { makeWire, shiftClock, showWireguard } from "./world.ts";
import type { World } from "./world.ts";

const { test, tests } = createSuite();
export { tests as clockTests };

const HOUR = 3600;
/** A session is renewed after 120 s (RekeyAfterTime) and ends after 180 s (RejectAfterTime). */
const UNTIL_RENEWED_MS = 130_000;
const UNTIL_ENDED_MS = 200_000;
const PROBE_EVERY_MS = 50;
const PROBE_MS = 100;
const SILENCE_MS = 1000;

test("a wire changes its session keys by itself, and loses nothing", async (world) => {
  await makeWire(world);
  const before = lastHandshakes(world);
  equal(await lostWithin(world, UNTIL_RENEWED_MS), 0);
  const after = lastHandshakes(world);
  ok(
    after.every((time, i) => time > (before[i] ?? 0)),
    `handshakes at ${before.join()}, then at ${after.join()}`,
  );
});

for (const [name, seconds] of [
  ["an hour", HOUR],
  ["a day", 24 * HOUR],
] as const)
  test(`a clock that is set forward by ${name} costs no packet, nor does the next handshake`, async (world) => {
    await makeWire(world);
    await whileSet(seconds, async (set) => {
      equal(await lostWithin(world, UNTIL_RENEWED_MS), 0);
      ok(lastHandshakes(world).every((time) => time > set));
    });
  });

test("after a clock that is set back by an hour the next handshake is taken all the same", async (world) => {
  await makeWire(world);
  await whileSet(-HOUR, async (set) => {
    const silenceMs = await longestSilence(world, UNTIL_ENDED_MS);
    note(`the wire was silent for ${(silenceMs / 1000).toFixed(1)} s`);
    ok(silenceMs < SILENCE_MS, `silent for ${silenceMs} ms`);
    // Kept with the wall clock: one before the clock was set would be an hour ahead.
    ok(lastHandshakes(world).every((time) => time > set && time <= Date.now() / 1000));
  });
});

test("so it is when the clocks of both nodes are set back twice, and no refresh comes", async (world) => {
  await makeWire(world);
  await whileSet(-HOUR, async () => {
    // By the end of it either node may have begun a handshake.
    await sleep(UNTIL_ENDED_MS);
    await whileSet(-HOUR, async () => {
      const silenceMs = await longestSilence(world, 2 * UNTIL_ENDED_MS);
      note(`the wire was silent for ${(silenceMs / 1000).toFixed(1)} s`);
      ok(silenceMs < SILENCE_MS, `silent for ${silenceMs} ms`);
    });
  });
});

/** Sets the clock, runs `body` with the new time in seconds since 1970, and sets the clock back. */
async function whileSet(seconds: number, body: (set: number) => Promise<void>): Promise<void> {
  shiftClock(seconds);
  try {
    await body(Date.now() / 1000);
  } finally {
    shiftClock(-seconds);
  }
}

/** Seconds since 1970, of both ends. */
function lastHandshakes({ nsc, nse }: World): number[] {
  return [showWireguard(nsc, "nsm-c"), showWireguard(nse, "nsm-e")].map(
    ({ peers }) => peers[0]?.lastHandshake ?? 0,
  );
}

/** Of a packet a second; those that only wait for a handshake come back late. */
async function lostWithin({ nsc, nse }: World, forMs: number): Promise<number> {
  using echo = startEcho(nse, "172.16.1.2");
  const stream = startStream(nsc, "172.16.1.1", "172.16.1.2", echo.port, 1000);
  await sleep(forMs);
  const { sent, lost } = await stream.stop();
  ok(sent >= forMs / 1100, `${sent} packets were sent`);
  return lost;
}

/** The longest time without an answer, by probes one after another. */
async function longestSilence({ nsc, nse }: World, forMs: number): Promise<number> {
  using echo = startEcho(nse, "172.16.1.2");
  const endMs = performance.now() + forMs;
  let [heardMs, longestMs] = [performance.now(), 0];
  while (performance.now() < endMs) {
    const heard = await probe(nsc, "172.16.1.1", "172.16.1.2", echo.port, { count: 1, timeoutMs: PROBE_MS });
    longestMs = Math.max(longestMs, performance.now() - heardMs);
    if (heard === 1) heardMs = performance.now();
    await sleep(PROBE_EVERY_MS);
  }
  return longestMs;
}
