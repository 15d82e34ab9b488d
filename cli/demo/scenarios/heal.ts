/**
 * Scenario `heal`: the endpoint in use dies together with its pod, and the wire goes on with a spare.
 *
 *     pod-heal-client ── nsm-1 ──► pod-heal-1 or pod-heal-2, both of service `healing`, with the same addresses
 */
import { delay } from "../../../sdk/clock.ts";
import { monotonicMs } from "../../probe/main.ts";
import type { Scenario } from "../scenario.ts";
import { PINGS_NEEDED } from "../wires.ts";

const CLIENT = "heal-client";
const ENDPOINTS = ["heal-1", "heal-2"] as const;
/** Probes before the death and after the healing, so that both are a part of the picture. */
const BEFORE_MS = 300;
const AFTER_MS = 300;

export const heal: Scenario = {
  name: "heal",
  clusters: false,
  mechanisms: ["KERNEL"],
  parts: (make) => [
    ...ENDPOINTS.map((name) => make.endpoint({ name, service: "healing", prefixes: "172.16.4.0/24" })),
    make.client({ name: CLIENT, services: "kernel://healing/nsm-1" }),
  ],
  look: [{ place: `pod-${CLIENT}`, command: "ip address" }],
  ask: [`get wires ${CLIENT}`],
  async play(stage) {
    const { story, signal } = stage;
    await using ends = new AsyncDisposableStack();
    const reflecting = ENDPOINTS.map(
      async (name) => [name, ends.use(await stage.reflector(name, `pod-${name}`))] as const,
    );
    const wire = await stage.established(CLIENT, () => true);
    const setupMs = Math.round(monotonicMs() - stage.startMs);
    const reflectors = new Map<string, AsyncDisposable>(await Promise.all(reflecting));
    story.step(
      `${CLIENT} has a wire to ${wire.nse}; ${ENDPOINTS.find((name) => name !== wire.nse)} is spare`,
    );
    const report = await stage.ping(CLIENT, wire);
    await stage.checkProber();

    const target = wire.peerAddresses[0]?.split("/")[0] ?? "";
    const prober = ends.use(await stage.prober(`pod-${CLIENT}`, target));
    await prober.waitFor(() => true, signal);
    await delay(BEFORE_MS, signal);
    await Promise.all([stage.kill(wire.nse), reflectors.get(wire.nse)?.[Symbol.asyncDispose]()]);
    await stage.removeNamespace(`pod-${wire.nse}`);
    story.step(`killed ${wire.nse} and removed its pod, with a probe each millisecond on the way`);
    const { from } = await prober.waitFor((arrival) => arrival.from !== wire.nse, signal);
    await delay(AFTER_MS, signal);
    const { gapMs, lost } = await prober.stop();
    story.step(`healed: ${from} answers; nothing for ${gapMs.toFixed(0)} ms, ${lost} probes lost`);
    const after = await stage.ping(CLIENT, wire);
    const ok = [report, after].every(({ pingsReceived }) => pingsReceived >= PINGS_NEEDED);
    return {
      ok,
      setupMs,
      healGapMs: Math.round(gapMs),
      failBackGapMs: null,
      packetsLost: lost,
      wires: [report],
    };
  },
};
