/**
 * T36 and a part of T37: two linked clusters whose certificates live for seconds and whose CAs change all the time; a CA that is
 * withdrawn; an authority that is away for longer than certificates live.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { MonitorConnection } from "../../api/gen/connection_pb.js";
import { systemClock } from "../../sdk/clock.ts";
import { NsmError } from "../../sdk/errors.ts";
import { createSessionPool } from "../../sdk/grpc/sessions.ts";
import { tokenMetadata } from "../../sdk/hops.ts";
import { silentLogger } from "../../sdk/log.ts";
import { parseBundle } from "../../sdk/spiffe/bundle.ts";
import { verifySvid } from "../../sdk/spiffe/verify.ts";
import { createTokenMinter } from "../../sdk/token.ts";
import { authorityIn } from "../support/authority-client.ts";
import { shortOrLong } from "../support/long.ts";
import { eventually } from "../support/netns.ts";
import { forgeIdentity } from "../support/stolen-key.ts";
import { useMesh } from "../support/use-mesh.ts";
import { refreshOf, segmentsOf, wishFor } from "../support/wishes.ts";
import { devicesIn, pingFrom, startTraffic } from "../support/wires.ts";
import type { Workload } from "../support/workload.ts";

/** Long enough for a busy machine. */
const SVID_LIFE_MS = 20_000;
/** Each makes all sessions of the mesh anew. */
const RENEWED_EVERY = "2s";
const ROTATING_MS = shortOrLong(60_000, 600_000);
const ROTATIONS = 3;
/** Twenty a second, of all workers together. */
const PAUSE_MS = 100;

const mesh = useMesh({
  clusters: true,
  nodes: 1,
  endpoints: [
    { name: "near", service: "near", prefixes: "172.16.1.0/24" },
    // Its addresses are not those that the client has to get again.
    { name: "other", service: "other", prefixes: "172.16.3.0/24" },
    { name: "far", node: "node3", service: "far", prefixes: "172.16.2.0/24" },
  ],
  exports: { west: ["far"] },
  clients: [{ name: "client", services: "kernel://near/nsm-1,kernel://far@west/nsm-2" }],
  workloads: ["worker"],
  pods: ["pod-worker"],
  svidLifetime: `${SVID_LIFE_MS}ms`,
  env: (part) =>
    part.startsWith("identity-")
      ? { NSM_IDENTITY_SVID_RENEWAL: RENEWED_EVERY, NSM_IDENTITY_REFRESH_HINT: "1s" }
      : {},
});

const stateOf = (cluster: "east" | "west") => join(mesh.folder, `identity-${cluster}`);
const devices = () => ["pod-client", "pod-near", "pod-far"].map((pod) => devicesIn(mesh.namespace(pod)));
const startAllTraffic = () =>
  (["near", "far"] as const).map((name, i) =>
    startTraffic({
      from: mesh.namespace("pod-client"),
      source: `172.16.${i + 1}.1`,
      to: mesh.namespace(`pod-${name}`),
      target: `172.16.${i + 1}.0`,
    }),
  );

/** What west publishes, as east has it. */
function westInEast() {
  const { bundles } = JSON.parse(readFileSync(join(stateOf("east"), "federation.json"), "utf8"));
  return parseBundle(
    String(bundles.find((each: { trustDomain: string }) => each.trustDomain === "west.nsm")?.document),
  );
}

const passed = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Replaces the CAs of both clusters a few times, in the same distances; each signs after four hints. */
async function rotateAll(untilMs: number): Promise<number> {
  const everyMs = (untilMs - performance.now()) / (ROTATIONS + 1);
  for (let times = 1; times <= ROTATIONS; times++) {
    await Promise.all((["east", "west"] as const).map((each) => authorityIn(stateOf(each)).rotate(false)));
    await passed(everyMs);
  }
  return ROTATIONS;
}

/** Makes a wire, refreshes it five times and gives it back, until the time is over. */
async function work(worker: Workload, service: string, device: string, untilMs: number): Promise<number> {
  let calls = 0;
  while (performance.now() < untilMs) {
    let wire = await worker.request(wishFor(worker, { service, id: device, interfaceName: device }));
    for (let refreshes = 0; refreshes < 5; refreshes++) {
      await passed(PAUSE_MS);
      const answer = await worker.request(refreshOf(wire));
      expect(segmentsOf(answer).map(({ id }) => id)).toEqual(segmentsOf(wire).map(({ id }) => id));
      wire = answer;
    }
    await worker.close(wire);
    calls += 7;
  }
  return calls;
}

test(
  "T36: certificates every few seconds and new CAs on both sides: no request fails, no packet is lost",
  { timeout: ROTATING_MS + 180_000 },
  async () => {
    await using worker = await mesh.workload("worker", "pod-worker");
    const before = devices();
    const began = { east: await authorityIn(stateOf("east")).list(), west: westInEast() };
    const traffic = startAllTraffic();
    const untilMs = performance.now() + ROTATING_MS;
    const [rotated, ...calls] = await Promise.all([
      rotateAll(untilMs),
      ...["near", "far@west"].map((service, i) => work(worker, service, `nsm-${i}`, untilMs)),
    ]);
    expect(rotated).toBe(ROTATIONS);

    for (const count of calls) expect(count).toBeGreaterThan(ROTATING_MS / 1000);
    for (const stream of traffic) expect(await stream.stop()).toMatchObject({ lost: 0 });
    expect(devices()).toEqual(before);
    // Nothing signs with the first ones any more, and as the old ones go, the other domain hears of it.
    const { keys } = await authorityIn(stateOf("east")).list();
    expect(keys.find(({ state }) => state === "signing")?.id).not.toBe(began.east.keys[0]?.id);
    const [first] = began.west.certificates;
    await eventually(
      "east has forgotten the first CA of west",
      () => !westInEast().certificates.some(({ fingerprint256 }) => fingerprint256 === first?.fingerprint256),
      2 * SVID_LIFE_MS,
    );
    expect(westInEast().sequence).toBeGreaterThan((began.west.sequence ?? 0n) + BigInt(ROTATIONS));
  },
);

test(
  "T36: a withdrawn CA ends the sessions of whoever stole its key within a second; wires go on",
  { timeout: 120_000 },
  async () => {
    await using thief = await forgeIdentity(stateOf("east"), "spiffe://east.nsm/workload/thief");
    await using pool = createSessionPool({
      source: thief,
      verify: verifySvid,
      log: silentLogger,
      clock: systemClock,
    });
    const { monitorConnections } = MonitorConnection.method;
    const target = { url: mesh.managerUrl() };
    const metadata = tokenMetadata(createTokenMinter({ clock: systemClock }));
    const listen = () =>
      pool.stream(target, monitorConnections, create(monitorConnections.input), {
        metadata,
        timeoutMs: 60_000,
      });
    const stream = listen();
    expect((await stream.next()).done).toBe(false);
    const cut = (async (): Promise<NsmError> => {
      try {
        for await (const _ of stream);
      } catch (error) {
        if (error instanceof NsmError) return error;
        throw error;
      }
      throw new Error("the stream ended without an error");
    })();

    const traffic = startAllTraffic();
    const beganMs = performance.now();
    const { keys } = await authorityIn(stateOf("east")).withdraw(thief.ca);
    const error = await cut;
    expect(performance.now() - beganMs).toBeLessThan(shortOrLong(3000, 1500)); // a second, and a busy machine's share
    expect(error).toMatchObject({ code: "UNAVAILABLE" });
    await mesh
      .daemon("nsmgr-node1")
      .waitFor(({ msg, peer }) => msg.includes("not trusted any more") && String(peer).endsWith("/thief"));
    expect(keys.map(({ id }) => id)).not.toContain(thief.ca);
    await expect(listen().next()).rejects.toMatchObject({ code: "UNAVAILABLE" });

    await using worker = await mesh.workload("worker", "pod-worker");
    await worker.close(await worker.request(wishFor(worker, { service: "near" })));
    await eventually(
      "wires into the other cluster",
      async () => {
        try {
          await worker.close(await worker.request(wishFor(worker, { service: "far@west" })));
          return true;
        } catch {
          return false;
        }
      },
      30_000,
    );
    for (const each of traffic) expect(await each.stop()).toMatchObject({ lost: 0 });
  },
);

test(
  "T37: while the authority is away nothing is granted after the end of the certificates, and soon afterwards everything again",
  { timeout: 180_000 },
  async () => {
    await using worker = await mesh.workload("worker", "pod-worker");
    await mesh.daemon("identity-east").kill();
    const request = () => worker.request(wishFor(worker, { service: "other" }));
    const isRefused = () =>
      request().then(
        async (wire) => {
          await worker.close(wire);
          return false;
        },
        () => true,
      );
    await eventually("requests are refused", isRefused, 2 * SVID_LIFE_MS);
    const refusedUntilMs = performance.now() + SVID_LIFE_MS / 2;
    while (performance.now() < refusedUntilMs) expect(await isRefused()).toBe(true);

    const identity = mesh.start("identity-east");
    await identity.waitFor("identity serves", 20_000);
    const servesMs = performance.now();
    await eventually("requests are granted again", async () => !(await isRefused()), 60_000);
    expect(performance.now() - servesMs).toBeLessThan(shortOrLong(30_000, 10_000)); // with a busy machine's share
    for (const i of [1, 2])
      await eventually(
        `wire ${i} is there again`,
        async () => {
          // Without the wire's route there is no way to ask.
          const answers = pingFrom(mesh.namespace("pod-client"), `172.16.${i}.0`);
          return await answers.then(
            ({ received }) => received === 5,
            () => false,
          );
        },
        60_000,
      );
  },
);
