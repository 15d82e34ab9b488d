/** Wires that come and go, some with the whole namespace of their client: daemons stay as they are, nothing is left. */
import { readFileSync } from "node:fs";
import { beforeAll, expect, test } from "vitest";
import { delay } from "../../sdk/clock.ts";
import { expectNothingLeft, takeSettledInventory } from "../support/inventory.ts";
import { createNamespace } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { wishFor } from "../support/wishes.ts";
import { Refusal } from "../support/workload.ts";
import type { Workload } from "../support/workload.ts";

const TOKEN_LIFE_MS = 6000;
const CYCLES = 50;
const WARM_UP_CYCLES = 10;
/** A small heap, so that what grows is kept and not just uncollected. */
const SMALL_HEAP = { NODE_OPTIONS: "--max-old-space-size=40 --max-semi-space-size=1" };
/** What remembered tokens and fragmentation may take: 100 KiB for each of the wires. */
const RSS_SLACK_MIB = 15;
const endpoints = [
  { name: "near", service: "near", prefixes: "172.16.1.0/24" },
  { name: "far", node: "node2", service: "far", prefixes: "172.16.2.0/24" },
  { name: "lan", node: "node2", service: "lan", payload: "ETHERNET", prefixes: "172.16.3.0/24" },
] as const;
const parts = [
  "identity",
  "registry",
  "nsmgr-node1",
  "nsmgr-node2",
  "forwarder-node1",
  "forwarder-node2",
  ...endpoints.map(({ name }) => name),
];

let client: Workload;
const mesh = useMesh({
  endpoints,
  workloads: ["client", "guest"],
  pods: ["pod-a"],
  env: SMALL_HEAP,
  tokenLifetime: `${TOKEN_LIFE_MS}ms`,
});
beforeAll(async () => {
  client = await mesh.workload("client", "pod-a");
});

const pids = () => new Map(parts.map((name) => [name, mesh.daemon(name).pid]));

function rssMiB(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}

async function cycle(count: number): Promise<void> {
  const all = endpoints.map(async ({ service }, i) => {
    for (let done = 0; done < count; done++) {
      const wish = wishFor(client, { service, id: `client-${i}`, interfaceName: `nsm-${i}` });
      await client.close(await client.request(wish));
    }
  });
  await Promise.all(all);
}

test("fifty wires of each kind, made and closed, leave descriptors, memory and the inventory level", async () => {
  await cycle(WARM_UP_CYCLES);
  const before = await takeSettledInventory({ daemons: pids() });
  const memory = new Map(parts.map((name) => [name, rssMiB(mesh.daemon(name).pid)]));
  await cycle(CYCLES);
  for (const name of parts)
    expect(rssMiB(mesh.daemon(name).pid) - (memory.get(name) ?? 0), name).toBeLessThan(RSS_SLACK_MIB);
  await expectNothingLeft(before, { daemons: pids() }, 10_000);
});

/** Milliseconds from a request to the death of its client: from before anything is made to after all of it. */
const DELAYS = [0, 4, 8, 12, 16, 20, 25, 30, 40, 50, 70, 100];
/** What a client that outlived its namespace's death by a moment may have been told. */
const CODES = new Set(["made", "workload-ended", "NOT_FOUND", "CANCELLED", "ABORTED"]);

/** A client asks for a wire and dies with its namespace; the outcome that it was told of. */
async function dieWhilePlumbing(service: string, afterMs: number): Promise<string> {
  await using namespace = createNamespace("doomed");
  await using guest = await mesh.workload("guest", namespace);
  const outcome = guest.request(wishFor(guest, { service, id: crypto.randomUUID() })).then(
    () => "made",
    (error: unknown) =>
      error instanceof Refusal ? (error.code === "?" ? error.reason : error.code) : String(error),
  );
  await delay(afterMs);
  await guest.kill();
  await namespace.kill();
  return await outcome;
}

test.for(endpoints)(
  "clients that die with their namespace while a wire to $service is made leave nothing",
  async ({ service }) => {
    const before = await takeSettledInventory({ daemons: pids() });
    for (let i = 0; i < DELAYS.length; i += 4)
      for (const outcome of await Promise.all(
        DELAYS.slice(i, i + 4).map((ms) => dieWhilePlumbing(service, ms)),
      ))
        expect(CODES).toContain(outcome);
    await expectNothingLeft(before, { daemons: pids() }, 3 * TOKEN_LIFE_MS);
    const wire = await client.request(wishFor(client, { service }));
    await client.close(wire);
  },
);
