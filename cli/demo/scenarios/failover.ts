/**
 * Scenario `failover`: a service is served in `west`, and by a backup in `east` while `west` is cut off.
 *
 *     pod-bank-client ── nsm-1 ──► pod-bank-west (tier 0), else pod-bank-east (tier 1), with the same addresses
 */
import { delay } from "../../../sdk/clock.ts";
import { monotonicMs } from "../../probe/main.ts";
import { nft } from "../../requirements.ts";
import type { Scenario } from "../scenario.ts";
import type { Stage } from "../stage.ts";
import { PINGS_NEEDED } from "../wires.ts";

const CLIENT = "bank-client";
const PRIMARY = "bank-west";
const BACKUP = "bank-east";
const PREFIXES = "172.16.8.0/24";
/** Probes before something happens and after it, so that both are a part of the picture. */
const AROUND_MS = 300;

export const failover: Scenario = {
  name: "failover",
  clusters: true,
  mechanisms: ["WIREGUARD"],
  tools: [nft],
  parts: (make) => [
    make.endpoint({ name: PRIMARY, node: "node3", service: "bank", prefixes: PREFIXES }),
    make.endpoint({
      name: BACKUP,
      node: "node2",
      service: "bank",
      prefixes: PREFIXES,
      env: { NSM_LABELS: "nsm.io/tier:1" },
    }),
    make.client({ name: CLIENT, services: "kernel://bank/nsm-1" }),
  ],
  later: [CLIENT],
  services: {
    east: [{ name: "bank", spec: { importFrom: ["west"] } }],
    west: [{ name: "bank", spec: { exportTo: ["east"] } }],
  },
  look: [{ place: `pod-${CLIENT}`, command: "ip address" }],
  ask: [`explain ${CLIENT} bank`],
  async play(stage) {
    const { story } = stage;
    await using reflectors = new AsyncDisposableStack();
    for (const name of [PRIMARY, BACKUP]) reflectors.use(await stage.reflector(name, `pod-${name}`));
    await stage.known(`${PRIMARY}@west`, "east");
    const startMs = monotonicMs();
    stage.start(CLIENT);
    const wire = await stage.established(CLIENT, ({ nse }) => nse.startsWith(PRIMARY));
    const setupMs = Math.round(monotonicMs() - startMs);
    story.step(`${CLIENT} has a wire to ${wire.nse}; ${BACKUP} is its backup`);
    const report = await stage.ping(CLIENT, wire);
    const target = wire.peerAddresses[0]?.split("/")[0] ?? "";
    const away = await watch(stage, target, PRIMARY, BACKUP, async () => {
      await stage.cut();
      story.step("cut west off, with a probe each millisecond on the way");
    });
    story.step(`${BACKUP} answers; nothing for ${away.gapMs.toFixed(0)} ms, ${away.lost} probes lost`);
    await stage.away(`${PRIMARY}@west`, "east"); // so that it can be back
    const back = await watch(stage, target, BACKUP, PRIMARY, async () => {
      await stage.mend();
      story.step("west is back; the client returns when it has been so for 2 s");
    });
    story.step(`${PRIMARY} answers again; nothing for ${back.gapMs.toFixed(0)} ms, ${back.lost} probes lost`);
    const after = await stage.ping(CLIENT, wire);
    return {
      ok: [report, after].every(({ pingsReceived }) => pingsReceived >= PINGS_NEEDED),
      setupMs,
      healGapMs: Math.round(away.gapMs),
      failBackGapMs: Math.round(back.gapMs),
      packetsLost: away.lost + back.lost,
      wires: [report],
    };
  },
};

/** What a prober sees while something happens that makes `after` answer in place of `before`. */
async function watch(
  stage: Stage,
  target: string,
  before: string,
  after: string,
  happen: () => Promise<void>,
) {
  const { signal } = stage;
  await using prober = await stage.prober(`pod-${CLIENT}`, target);
  await prober.waitFor(({ from }) => from === before, signal);
  await delay(AROUND_MS, signal);
  await happen();
  await prober.waitFor(({ from }) => from === after, signal);
  await delay(AROUND_MS, signal);
  return await prober.stop();
}
