/** The registry as a client of the bench uses it: many names, registered again and found. */
import { create } from "@bufbuild/protobuf";
import { NetworkServiceEndpointSchema } from "../../api/gen/registry_pb.js";
import type { Clock } from "../../sdk/clock.ts";
import { messageOf } from "../../sdk/errors.ts";
import type { Mesh } from "../../sdk/mesh.ts";
import { EMPTY_PATH } from "../../sdk/registry-path.ts";
import { createRegistryClient } from "../../sdk/registry/client.ts";
import { findAll } from "../../sdk/registry/registry.ts";
import type { Commands, RegistryTimings } from "./commands.ts";
import { inParallel } from "./parallel.ts";

const DEADLINE_MS = 15_000;

type RegistryCommands = Pick<Commands, "register" | "find">;

export function createRegistrations(mesh: Mesh, clock: Clock): RegistryCommands {
  const endpointsAt = (url: string) => createRegistryClient({ ...mesh, clock, target: { url } }).endpoints;
  return {
    register(url, { from, to, perService }, parallel) {
      const registry = endpointsAt(url);
      return timing(to - from, parallel, async (index) => {
        const number = from + index;
        const entry = create(NetworkServiceEndpointSchema, {
          name: `bench-${number}`,
          networkServiceNames: [`service-${Math.floor(number / perService)}`],
          networkServiceLabels: {
            [`service-${Math.floor(number / perService)}`]: { labels: { app: "bench" } },
          },
          url: "tcp://192.0.2.1:5001",
        });
        const deadlineMs = clock.now() + DEADLINE_MS;
        const signal = AbortSignal.timeout(DEADLINE_MS);
        await registry.register(entry, {
          signal,
          deadlineMs,
          peer: undefined,
          registration: { path: EMPTY_PATH },
        });
      });
    },
    find(url, services, expected, count, parallel) {
      const registry = endpointsAt(url);
      return timing(count, parallel, async (index) => {
        const service = `service-${index % services}`;
        const query = create(NetworkServiceEndpointSchema, { networkServiceNames: [service] });
        const found = await findAll(registry, query, AbortSignal.timeout(DEADLINE_MS));
        if (found.length !== expected)
          throw new Error(`${service} has ${found.length} endpoints, not ${expected}`);
      });
    },
  };
}

async function timing(
  count: number,
  parallel: number,
  body: (index: number) => Promise<void>,
): Promise<RegistryTimings> {
  const eachMs: number[] = [];
  const failed: string[] = [];
  const start = performance.now();
  await inParallel(count, parallel, async (index) => {
    const began = performance.now();
    try {
      await body(index);
      eachMs.push(performance.now() - began);
    } catch (error) {
      failed.push(messageOf(error));
    }
  });
  return { totalMs: performance.now() - start, eachMs, failed };
}
