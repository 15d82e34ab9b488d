/** Domains that do not answer: whoever asks for them is told soon, and nobody else notices. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { NetworkServiceRegistry } from "../../api/gen/registry_pb.js";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { wishFor } from "../support/wishes.ts";

const HANGING = 64;
const domains = Array.from({ length: HANGING }, (_, i) => `hangs-${i}`);

/** NSM_DIAL_TIMEOUT of the proxy. */
const DIALLING_MS = 750;

const folder = mkdtempSync(join(tmpdir(), "silent-"));
const file = join(folder, "domains.yaml");
/** Nobody has these addresses of the node's own network: who dials them waits. */
const address = (i: number) => `tcp://192.0.2.${100 + i}:5002`;
beforeAll(() =>
  writeFileSync(
    file,
    JSON.stringify({
      domains: Object.fromEntries(
        domains.map((name, i) => [name, { registry: address(i), proxy: address(i) }]),
      ),
    }),
  ),
);
afterAll(() => rmSync(folder, { recursive: true }));

const mesh = useMesh({
  clusters: "unified",
  nodes: 1,
  endpoints: [{ name: "other", node: "node1", service: "other", prefixes: "172.16.7.0/24" }],
  workloads: ["asker", "neighbour"],
  pods: ["pod-asker", "pod-neighbour"],
  env: (part): Readonly<Record<string, string>> => (part === "proxy-east" ? { NSM_DOMAINS_PATH: file } : {}),
});

test("T43: 64 domains that hang are told of within two seconds each, and slow no local request down", async () => {
  await using asker = await mesh.workload("asker", "pod-asker");
  await using neighbour = await mesh.workload("neighbour", "pod-neighbour");
  const wish = wishFor(neighbour, { service: "other" });
  const request = async () => neighbour.close(await neighbour.request(wish));
  const look = async () => {
    const query = { networkService: { name: "other" } };
    const found = await neighbour.stream(NetworkServiceRegistry.method.find, query);
    await eventually("the end of the list", () => found.end !== undefined);
    expect(found.messages).toHaveLength(1);
  };
  const local = async () => ({ requests: await timesOf(5, request), looks: await timesOf(20, look) });
  await local(); // what is loaded with the first use

  const [alone, beside] = [newTimes(), newTimes()];
  const tookMs: number[] = [];
  for (let round = 0; round < 4; round++) {
    add(alone, await local());
    const asking = domains.map(async (domain) => {
      const startedMs = performance.now();
      const query = { networkService: { name: `service@${domain}` } };
      const refusal = await (await asker.stream(NetworkServiceRegistry.method.find, query)).refused();
      tookMs.push(performance.now() - startedMs);
      expect(refusal.code).toBe("UNAVAILABLE");
    });
    add(beside, await local());
    await Promise.all(asking);
  }
  expect(tookMs).toHaveLength(4 * HANGING);
  // Beside what it costs a busy machine to begin and tell of 64 streams at once.
  expect(Math.max(...tookMs)).toBeLessThan(2 * 2000);
  for (const what of ["requests", "looks"] as const) {
    const [before, meanwhile] = [quantilesOf(alone[what]), quantilesOf(beside[what])];
    expect(meanwhile.p50, `${what}: ${JSON.stringify({ before, meanwhile })}`).toBeLessThan(
      3 * before.p50 + 10,
    );
    // What waited for a domain would take as long as dialling one.
    expect(meanwhile.p99, `${what}: ${JSON.stringify({ before, meanwhile })}`).toBeLessThan(
      Math.max(3 * before.p99, DIALLING_MS),
    );
  }
});

interface Times {
  readonly requests: number[];
  readonly looks: number[];
}

const newTimes = (): Times => ({ requests: [], looks: [] });

function add(all: Times, more: { readonly [K in keyof Times]: readonly number[] }): void {
  all.requests.push(...more.requests);
  all.looks.push(...more.looks);
}

function quantilesOf(times: readonly number[]) {
  const sorted = times.toSorted((a, b) => a - b);
  const at = (share: number) => Math.round(sorted[Math.floor(share * sorted.length)] ?? NaN);
  return { p50: at(0.5), p99: at(0.99) };
}

async function timesOf(count: number, body: () => Promise<unknown>): Promise<readonly number[]> {
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const startedMs = performance.now();
    await body();
    times.push(performance.now() - startedMs);
  }
  return times;
}
