/** What happens in a run of the demo, from its namespaces to the end of its last scenario. */
import { existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { delay } from "../../sdk/clock.ts";
import { NsmError } from "../../sdk/errors.ts";
import { createBoard } from "./board.ts";
import { createCast } from "./cast.ts";
import type { Cast } from "./cast.ts";
import { createClientLogs } from "./client-logs.ts";
import { markedEnvironment } from "./down.ts";
import { linkClusters } from "./linking.ts";
import type { Machine } from "./machine.ts";
import { makeNamespaces } from "./namespaces.ts";
import { writeFiles } from "./parts.ts";
import type { RunRecord } from "./record.ts";
import { operator, writeRegistrations } from "./registrations.ts";
import { FAILED, scenarioReport } from "./scenario.ts";
import type { Scenario, ScenarioReport } from "./scenario.ts";
import { play } from "./stage.ts";
import type { Story } from "./story.ts";
import { foldersOf, identityUrl, outside, underlay } from "./topology.ts";
import type { ClusterName, Part, Site, Topology } from "./topology.ts";
import { warmUp } from "./warm-up.ts";
import type { Established, WireReport } from "./wires.ts";

const AUTHORITY_WITHIN_MS = 60_000;

/** A scenario with the parts that it has on this machine. */
export interface Casting {
  readonly scenario: Scenario;
  readonly parts: readonly Part[];
}

/** What was seen so far, also when a later scenario fails. */
export interface Progress {
  /** From the command to the first reply over a wire. */
  firstPingMs: number | null;
  /** The same over a wire between the clusters. */
  firstPingBetweenClustersMs: number | null;
  /** From the command for the token until the clusters were linked. */
  linkMs: number | null;
  /** Of all scenarios, as they were before anything was killed or cut. */
  wires: readonly WireReport[];
  /** Of those that were begun. */
  scenarios: Record<string, ScenarioReport>;
}

export interface Tour {
  readonly topology: Topology;
  readonly daemons: readonly Part[];
  readonly castings: readonly Casting[];
  readonly machine: Machine;
  readonly record: RunRecord;
  readonly story: Story;
  readonly signal: AbortSignal;
}

/** Whatever fails is thrown; what was seen until then is in `progress`. */
export async function playAll(tour: Tour, progress: Progress): Promise<void> {
  const { topology, story } = tour;
  await makePlaces(tour);
  tour.signal.throwIfAborted();
  const cast = createCast(topology, tour.record);
  const [site] = topology.sites;
  const board = createBoard(story, site?.cluster);
  using logs = createClientLogs(topology.folder, (client, news) => board.heard(client, news));
  const over = new AbortController();
  const replied = Promise.withResolvers<void>();
  const onReply = (wire: Established) => {
    noteReply(wire, progress, story);
    replied.resolve();
  };
  const signal = AbortSignal.any([tour.signal, cast.failed, over.signal]);
  try {
    if (site !== undefined) await startDaemons(site, tour, cast, signal);
    // The other cluster starts behind the first wire of this one, unless that wire needs it.
    const isNeeded = tour.castings[0]?.scenario.clusters === true;
    const linked = (isNeeded ? Promise.resolve() : replied.promise).then(() => link(tour, cast, signal));
    linked.catch(() => undefined); // whoever needs it waits for it
    for (const { scenario, parts } of tour.castings) {
      if (scenario.clusters) progress.linkMs ??= await linked;
      progress.scenarios[scenario.name] = FAILED;
      const outcome = await play(scenario, parts, { ...tour, cast, logs, board, onReply });
      progress.scenarios[scenario.name] = scenarioReport(outcome);
      progress.wires = [...progress.wires, ...outcome.wires];
    }
  } finally {
    over.abort(new NsmError("CANCELLED", "tour-over", "the tour is over"));
    story.settle();
    cast.dismiss();
  }
}

/** Daemons wait for their identity only so long, and a busy machine may start the authority last. */
async function startDaemons(
  site: Site,
  { topology, daemons, story }: Tour,
  cast: Cast,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const socket = identityUrl(topology.folder, site.authority).slice("unix://".length);
  const { authority = [], others = [] } = Object.groupBy(
    daemons.filter((part) => part.site === site),
    ({ role }) => (role === "identity" ? "authority" : "others"),
  );
  for (const part of authority) cast.start(part);
  const within = AbortSignal.any([signal, AbortSignal.timeout(AUTHORITY_WITHIN_MS)]);
  while (!existsSync(socket)) await delay(10, within);
  signal.throwIfAborted(); // whatever starts now would stay
  for (const part of others) cast.start(part);
  story.step(`started ${[...authority, ...others].map(({ name }) => name).join(", ")}`);
}

/** Starts the other cluster and links it. Null when there is none. */
async function link(tour: Tour, cast: Cast, signal: AbortSignal): Promise<number | null> {
  const { topology, castings, story } = tour;
  const [, other] = topology.sites;
  if (other === undefined) return null;
  await startDaemons(other, tour, cast, signal);
  const of = (cluster: ClusterName) => castings.flatMap(({ scenario }) => scenario.exports?.[cluster] ?? []);
  const exports = { east: of("east"), west: of("west") };
  return await linkClusters(topology, { exports, say: (what) => story.step(what), signal });
}

/** Folders, namespaces, files. */
async function makePlaces({ topology, story }: Tour): Promise<void> {
  const { folder, sites, places, files } = topology;
  story.step(`run ${topology.run}, recorded in ${folder}`);
  for (const name of foldersOf(sites)) mkdirSync(join(folder, name), { mode: 0o700 });
  const namespaces = makeNamespaces(topology, markedEnvironment(topology.run));
  const [warmed] = await Promise.all([warmUp(), namespaces]);
  if (warmed) story.step("compiled the daemons, once for this checkout");
  const pods = places.filter((place) => place.startsWith("pod-"));
  for (const { cluster, nodes } of sites)
    if (cluster !== undefined)
      story.step(
        `cluster ${cluster}: ${nodes.map((node) => `${node} (${underlay[node]}, outside ${outside[node]})`).join(", ")}`,
      );
  const [alone] = sites.filter(({ cluster }) => cluster === undefined);
  const joined =
    alone === undefined
      ? "east and west joined by a router"
      : `${alone.nodes.map((node) => `${node} (${underlay[node]})`).join(" and ")} joined`;
  story.step(`${joined}, ${pods.length} pods`);
  writeRegistrations(topology, (site) => [operator(site)]);
  for (const name of Object.keys(files)) mkdirSync(join(folder, dirname(name)), { recursive: true });
  writeFiles(topology);
}

function noteReply({ path }: Established, progress: Progress, story: Story): void {
  const now = Math.round(performance.now());
  if (progress.firstPingMs === null) story.step("first reply over a wire");
  progress.firstPingMs ??= now;
  if (!path.some((name) => name.startsWith("proxy-"))) return;
  if (progress.firstPingBetweenClustersMs === null) story.step("first reply from the other cluster");
  progress.firstPingBetweenClustersMs ??= now;
}
