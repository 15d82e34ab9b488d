/**
 * T39: two clusters that are cut off from one another, wholly or in part, once or again and again. The wires within a cluster do not
 * notice; those between them are back as soon as the way is.
 */
import { execFileSync } from "node:child_process";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Cut } from "../../cli/demo/border.ts";
import { delay } from "../../sdk/clock.ts";
import { startArrivals } from "../support/arrivals.ts";
import type { Arrivals } from "../support/arrivals.ts";
import { shortOrLong } from "../support/long.ts";
import { fresh } from "../support/mesh.ts";
import type { MeshOptions } from "../support/mesh-topology.ts";
import { eventually } from "../support/netns.ts";
import { startEcho, startStream } from "../support/udp.ts";
import { useMesh } from "../support/use-mesh.ts";
import type { UsedMesh } from "../support/use-mesh.ts";
import { deviceIn, devicesIn } from "../support/wires.ts";

const CUT_MS = shortOrLong(10_000, 300_000);
const PART_CUT_MS = shortOrLong(5000, 300_000);
const FLAPS = shortOrLong(3, 20);
const FLAP_MS = 5000;
/** What is to be reached is one second, and five for wires that must be made anew; a machine that runs eight things at once is given more. */
const RESUMED_WITHIN_MS = 3000;
const REMADE_WITHIN_MS = 30_000;

const WEST = ["registry-west", "proxy-west", "nsmgr-node3", "forwarder-node3", "far"];

const options: MeshOptions = {
  clusters: true,
  nodes: 1,
  networkServices: {
    west: "kind: NetworkService\nmetadata: { name: far }\nspec: { payload: IP, exportTo: [east] }\n",
  },
  endpoints: [
    { name: "near", service: "near", prefixes: "[172.16.1.2/31,172.16.1.4/31]" },
    { name: "far", node: "node3", service: "far", prefixes: "[172.16.2.2/31,172.16.2.4/31]" },
  ],
  clients: [
    { name: "client", services: "kernel://near/nsm-1,kernel://far@west/nsm-2", started: false },
    { name: "neighbour", node: "node3", services: "kernel://far/nsm-1", started: false },
    { name: "visitor", services: "kernel://near/nsm-1", started: false },
  ],
};

/** A client with a wire in its cluster and one to the other; a neighbour of the other's endpoint; packets on all three. */
function useWires(mesh: UsedMesh) {
  const pod = (name: string) => mesh.namespace(`pod-${name}`);
  let ends: AsyncDisposableStack;
  let far: Arrivals;
  let within: readonly { from: string; stop(): Promise<{ sent: number; lost: number }> }[];
  beforeEach(async () => {
    ends = new AsyncDisposableStack();
    mesh.start("client");
    for (const name of ["nsm-1", "nsm-2"]) await mesh.established("client", name);
    mesh.start("neighbour");
    await mesh.established("neighbour", "nsm-1");
    far = ends.use(startArrivals(pod("client"), "172.16.2.3", pod("far"), "172.16.2.2"));
    within = [
      stream("client", "172.16.1.3", "near", "172.16.1.2"),
      stream("neighbour", "172.16.2.5", "far", "172.16.2.4"),
    ];
    await far.firstAfter(performance.now(), 10_000);
  });
  afterEach(async () => {
    await mesh.mend();
    await ends.disposeAsync();
    for (const name of ["client", "neighbour"]) await mesh.daemon(name).stop();
    for (const name of ["near", "far"])
      await eventually(`no device in ${name}`, () => devicesIn(pod(name)).length === 0, REMADE_WITHIN_MS);
    await mesh.expectAsStarted();
  });
  /** A datagram each millisecond. */
  const stream = (from: string, source: string, to: string, target: string) => {
    const echo = ends.use(startEcho(pod(to), target));
    const started = startStream(pod(from), source, target, echo.port, 1);
    let outcome: ReturnType<typeof started.stop> | undefined;
    const stop = () => (outcome ??= started.stop());
    ends.defer(async () => void (await stop()));
    return { from, stop };
  };
  return {
    get far() {
      return far;
    },
    stream,
    /** What the client has said of its wire to the other cluster: `down` and `up`. */
    changes: () =>
      mesh
        .daemon("client")
        .log.filter(({ connection }) => connection === "client-1")
        .flatMap(({ msg }) =>
          msg === "wire is down, healing" ? ["down"] : msg === "wire established" ? ["up"] : [],
        ),
    /** Fails if a wire within one of the clusters lost a packet, or changed. */
    async expectNothingLostWithin(...clients: readonly string[]) {
      for (const each of within.filter(({ from }) => clients.includes(from))) {
        const { sent, lost } = await each.stop();
        expect(sent).toBeGreaterThan(1000);
        expect(lost).toBe(0);
      }
    },
    /** Cuts for a time; resolves with how many packets passed meanwhile, and how long after its end they came through again. */
    async cutFor(what: Cut, ms: number) {
      await mesh.cut(what);
      const cutMs = performance.now();
      await delay(ms);
      const passed = far.countSince(cutMs);
      const mendMs = performance.now();
      await mesh.mend();
      return { passed, resumedMs: await far.firstAfter(mendMs, REMADE_WITHIN_MS) };
    },
  };
}

describe("two clusters", () => {
  const mesh = useMesh(options);
  const wires = useWires(mesh);
  const isUpAgain = (ups: number) =>
    eventually(
      "the client says that the wire is up",
      () => wires.changes().filter((each) => each === "up").length === ups,
      REMADE_WITHIN_MS,
    );

  test.for(["everything", "to-east", "to-west"] as const)(
    "T39: cut off (%s) and back: wires within the clusters lose nothing, and the one between them resumes",
    async (what) => {
      const { passed, resumedMs } = await wires.cutFor(what, what === "everything" ? CUT_MS : PART_CUT_MS);
      console.log(`resumed ${resumedMs.toFixed(0)} ms after the cut (${what})`);
      expect(passed).toBe(0);
      expect(resumedMs).toBeLessThan(RESUMED_WITHIN_MS);
      await isUpAgain(2);
      expect(wires.changes()).toEqual(["up", "down", "up"]);
      await wires.expectNothingLostWithin("client", "neighbour");
    },
  );

  test("T39: only tunnels are cut: the client says it once, and that the wire is up when packets pass", async () => {
    const { passed, resumedMs } = await wires.cutFor("data", PART_CUT_MS);
    console.log(`resumed ${resumedMs.toFixed(0)} ms after the cut (data)`);
    expect(passed).toBe(0);
    expect(resumedMs).toBeLessThan(RESUMED_WITHIN_MS);
    await isUpAgain(2);
    await delay(FLAP_MS);
    expect(wires.changes()).toEqual(["up", "down", "up"]);
    await wires.expectNothingLostWithin("client", "neighbour");
  });

  test("T39: only control is cut: no wire loses anything or is touched", async () => {
    const { ifindex } = deviceIn(mesh.namespace("pod-client"), "nsm-2");
    const between = wires.stream("client", "172.16.2.3", "far", "172.16.2.2");
    await wires.cutFor("control", PART_CUT_MS);
    const { sent, lost } = await between.stop();
    expect(sent).toBeGreaterThan(1000);
    expect(lost).toBe(0);
    expect(wires.changes()).toEqual(["up"]);
    expect(deviceIn(mesh.namespace("pod-client"), "nsm-2").ifindex).toBe(ifindex);
    await wires.expectNothingLostWithin("client", "neighbour");
  });

  test("T39: flapping: each time the wire between the clusters goes down once and comes up once", async () => {
    for (let flap = 1; flap <= FLAPS; flap++) {
      const { passed, resumedMs } = await wires.cutFor("everything", FLAP_MS);
      const upMs = performance.now();
      console.log(`resumed ${resumedMs.toFixed(0)} ms after flap ${flap}`);
      expect(passed).toBe(0);
      expect(resumedMs).toBeLessThan(RESUMED_WITHIN_MS);
      await isUpAgain(1 + flap);
      await delay(Math.max(0, FLAP_MS - (performance.now() - upMs)));
    }
    expect(wires.changes()).toEqual(["up", ...Array.from({ length: FLAPS }, () => ["down", "up"]).flat()]);
    await wires.expectNothingLostWithin("client", "neighbour");
  });

  test("T39: a cluster that dies wholly takes nothing of the other; when it is back the wire to it is", async () => {
    const said = fresh(mesh.daemon("client"));
    await mesh.daemon("identity-west").kill();
    for (const place of ["node3", "pod-far"]) killAll(mesh.namespace(place).name);
    await said("wire is down, healing");
    mesh.start("visitor");
    expect((await mesh.established("visitor", "nsm-1")).nse).toBe("near");
    expect(await mesh.daemon("visitor").stop()).toBe(0);

    await mesh.start("identity-west").waitFor("identity serves", REMADE_WITHIN_MS);
    for (const name of WEST) mesh.start(name);
    const startMs = performance.now();
    const resumedMs = await wires.far.firstAfter(startMs, 2 * REMADE_WITHIN_MS);
    console.log(`resumed ${resumedMs.toFixed(0)} ms after the start of the other cluster`);
    await isUpAgain(2);
    await wires.expectNothingLostWithin("client");
  });
});

/** As a cluster that loses its power: WireGuard in user space, too. */
function killAll(namespace: string): void {
  const pids = execFileSync("ip", ["netns", "pids", namespace], { encoding: "utf8" }).trim().split("\n");
  for (const pid of pids) process.kill(Number(pid), "SIGKILL");
}

describe("two clusters with tokens of a short life", () => {
  const LIFE_MS = 10_000;
  const mesh = useMesh({ ...options, tokenLifetime: `${LIFE_MS}ms` });
  const wires = useWires(mesh);

  test("T39: cut off for longer than a token lives: the wire is made anew, wires within the clusters lose nothing", async () => {
    const { passed, resumedMs } = await wires.cutFor("everything", shortOrLong(2, 30) * LIFE_MS);
    console.log(`made anew ${resumedMs.toFixed(0)} ms after a cut longer than a token's life`);
    expect(passed).toBe(0);
    await wires.expectNothingLostWithin("client", "neighbour");
  });
});
