/** Sockets of endpoints: three descriptors for each that is alive (who registered, the socket, who listens). */
import { readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { openBed } from "../../test/support/grpc.ts";
import type { Bed } from "../../test/support/grpc.ts";
import { startListener } from "../../test/support/listener-process.ts";
import { createEndpointSockets } from "./endpoint-sockets.ts";

async function startEndpoint(bed: Bed, name: string) {
  const path = join(bed.dir, name);
  const process = await startListener(path);
  return { ...process, hop: { url: `unix:///proc/${process.pid}/root${path}` } };
}

/** Open descriptors of processes and of sockets in the bed's directory. */
function descriptors(bed: Bed): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      const link = readlinkSync(`/proc/self/fd/${fd}`);
      return link.includes("pidfd") || link.startsWith(bed.dir);
    } catch {
      return false; // the directory's own
    }
  }).length;
}

test("the next endpoint that is called takes the descriptors of dead ones away", async () => {
  await using bed = await openBed();
  using sockets = createEndpointSockets(createFakeClock());
  await using a = await startEndpoint(bed, "a");
  await using b = await startEndpoint(bed, "b");
  await using c = await startEndpoint(bed, "c");
  for (const { hop } of [a, b]) sockets.targetOf(hop);
  expect(descriptors(bed)).toBe(6);
  for (const each of [a, b]) await each.kill();
  sockets.targetOf(c.hop);
  expect(descriptors(bed)).toBe(3);
  expect([a, b, c].map(({ hop }) => sockets.isAlive(hop))).toEqual([false, false, true]);
});

test("descriptors of dead endpoints are closed although nobody calls another", async () => {
  await using bed = await openBed();
  const clock = createFakeClock();
  using sockets = createEndpointSockets(clock);
  await using dead = await startEndpoint(bed, "dead");
  await using alive = await startEndpoint(bed, "alive");
  for (const { hop } of [dead, alive]) sockets.targetOf(hop);
  await dead.kill();
  expect(descriptors(bed)).toBe(6);
  await clock.advance(60_000);
  expect(descriptors(bed)).toBe(3);
  await alive.kill();
  await clock.advance(60_000);
  expect(descriptors(bed)).toBe(0);
});

test("nothing is left when it is disposed of", async () => {
  await using bed = await openBed();
  const clock = createFakeClock();
  const sockets = createEndpointSockets(clock);
  await using endpoint = await startEndpoint(bed, "a");
  sockets.targetOf(endpoint.hop);
  sockets[Symbol.dispose]();
  expect(descriptors(bed)).toBe(0);
  expect(clock.armed).toBe(0);
});
