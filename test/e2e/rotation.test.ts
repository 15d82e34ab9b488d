/** Certificates of ten seconds under load, and an authority that is away: wires, sessions and refreshes go on. */
import { beforeAll, expect, test } from "vitest";
import { shortOrLong } from "../support/long.ts";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { refreshOf, segmentsOf, wishFor } from "../support/wishes.ts";
import { devicesIn, pingFrom, startTraffic } from "../support/wires.ts";
import type { Workload } from "../support/workload.ts";

const SVID_LIFE_MS = 10_000;
const endpoints = [
  { name: "near", service: "near", prefixes: "172.16.1.0/24" },
  { name: "far", node: "node2", service: "far", prefixes: "172.16.2.0/24" },
  { name: "lan", node: "node2", service: "lan", payload: "ETHERNET", prefixes: "172.16.3.0/24" },
] as const;
const services = "kernel://near/nsm-1,kernel://far/nsm-2,kernel://lan/nsm-3";

let worker: Workload;
const mesh = useMesh({
  endpoints,
  clients: [{ name: "client", services }],
  workloads: ["worker"],
  pods: ["pod-worker"],
  svidLifetime: `${SVID_LIFE_MS}ms`,
});
beforeAll(async () => {
  worker = await mesh.workload("worker", "pod-worker");
});

function startAllTraffic() {
  const from = mesh.namespace("pod-client");
  return endpoints.map(({ name }, i) =>
    startTraffic({
      from,
      source: `172.16.${i + 1}.1`,
      to: mesh.namespace(`pod-${name}`),
      target: `172.16.${i + 1}.0`,
    }),
  );
}

function devices() {
  return ["pod-client", "pod-near", "pod-far", "pod-lan"].map((pod) => devicesIn(mesh.namespace(pod)));
}

/** What anybody has complained of. */
function complaints() {
  const parts = [
    "client",
    "nsmgr-node1",
    "nsmgr-node2",
    "forwarder-node1",
    "forwarder-node2",
    "registry",
    "near",
    "far",
    "lan",
  ];
  return parts.flatMap((part) =>
    mesh
      .daemon(part)
      .log.filter(({ level }) => Number(level) >= 40)
      .map((line) => `${part}: ${JSON.stringify(line)}`),
  );
}

/** Establishes, refreshes and closes a wire of its own to each service, until the time is over. */
async function work(service: string, interfaceName: string, untilMs: number): Promise<number> {
  let calls = 0;
  while (performance.now() < untilMs) {
    let wire = await worker.request(wishFor(worker, { service, id: interfaceName, interfaceName }));
    for (let refreshes = 0; refreshes < 5; refreshes++) {
      const answer = await worker.request(refreshOf(wire));
      expect(segmentsOf(answer).map(({ id }) => id)).toEqual(segmentsOf(wire).map(({ id }) => id));
      wire = answer;
    }
    await worker.close(wire);
    calls += 7;
  }
  return calls;
}

test("certificates of ten seconds are renewed under load: no call fails, no packet is lost, no device changes", async () => {
  const before = devices();
  const complained = complaints();
  const traffic = startAllTraffic();
  const untilMs = performance.now() + shortOrLong(2.5, 60) * SVID_LIFE_MS;
  const calls = await Promise.all(endpoints.map(({ service }, i) => work(service, `nsm-${i}`, untilMs)));

  for (const count of calls) expect(count).toBeGreaterThan(20);
  for (const stream of traffic) expect(await stream.stop()).toMatchObject({ lost: 0 });
  expect(devices()).toEqual(before);
  expect(complaints()).toEqual(complained);
});

test("while the authority is away, and after its restart, wires and sessions go on with what they have", async () => {
  const before = devices();
  const traffic = startAllTraffic();
  const old = await worker.generation();
  await mesh.daemon("identity").kill();
  const wire = await worker.request(wishFor(worker, { service: "near" }));
  await worker.close(await worker.request(refreshOf(wire)));

  mesh.start("identity");
  const isNew = async () => (await worker.generation()) > old;
  await eventually("the worker has a new certificate", isNew, 1.5 * SVID_LIFE_MS);
  await worker.close(await worker.request(wishFor(worker, { service: "far" })));
  for (const stream of traffic) expect(await stream.stop()).toMatchObject({ lost: 0 });
  expect(devices()).toEqual(before);
  expect(await pingFrom(mesh.namespace("pod-client"), "172.16.2.0")).toMatchObject({ received: 5 });
});
