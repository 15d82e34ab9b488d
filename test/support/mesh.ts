/**
 * A mesh of real daemons in namespaces of its own, for tests: started, killed and restarted part by part, removed as a whole.
 *
 * Made of the demo's own building blocks (cli/demo): namespaces joined by an underlay, one group and no more capabilities for
 * each role, an identity authority that tells them apart. With NSM_TEST_LOGS=<folder> every process's log is written there.
 */
import { randomInt } from "node:crypto";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { execPath } from "node:process";
import { cutClusters, mendClusters } from "../../cli/demo/border.ts";
import type { Cut } from "../../cli/demo/border.ts";
import { namespaceFile } from "../../cli/demo/commands.ts";
import { WIREGUARD_FOLDER, markedEnvironment, removeRun } from "../../cli/demo/down.ts";
import { linkClusters } from "../../cli/demo/linking.ts";
import { makeNamespaces, removeNamespaces } from "../../cli/demo/namespaces.ts";
import { writeFiles } from "../../cli/demo/parts.ts";
import {
  findProcesses,
  netnsOf,
  netnsOfFile,
  processId,
  signalAll,
  waitUntilGone,
} from "../../cli/demo/processes.ts";
import { operator, writeRegistrations } from "../../cli/demo/registrations.ts";
import { capabilitiesOf } from "../../cli/demo/start.ts";
import { foldersOf, identityUrl, managerUrl, namespaceOf } from "../../cli/demo/topology.ts";
import type { NodeName, Part, Site, Topology } from "../../cli/demo/topology.ts";
import { warmUp } from "../../cli/demo/warm-up.ts";
import type { Established } from "../../cli/demo/wires.ts";
import { joinFloating } from "./floating.ts";
import { gidOfWorkload, isLinked, meshTopology } from "./mesh-topology.ts";
import type { MeshOptions } from "./mesh-topology.ts";
import { namespaceNamed } from "./netns.ts";
import type { NamedNamespace } from "./netns.ts";
import { startDaemon } from "./process.ts";
import type { DaemonProcess, LogLine } from "./process.ts";
import { wireOf } from "./wires.ts";
import { startWorkload } from "./workload.ts";
import type { Workload } from "./workload.ts";

export interface Mesh extends AsyncDisposable {
  /** Holds sockets, state and registrations. */
  readonly folder: string;
  /** The running process of a part, or the last one. Parts: `identity`, `registry`, `nsmgr-node1`, `forwarder-node1`, and the names of endpoints and clients. */
  daemon(name: string): DaemonProcess;
  /** Starts a part that does not run, with these variables in place of its own. */
  start(name: string, env?: Readonly<Record<string, string>>): DaemonProcess;
  /** SIGKILL and a new process; resolves as soon as that is started. */
  restart(...names: readonly string[]): Promise<void>;
  /** SIGKILL for everything in the pod of an endpoint or client, and the end of its namespace: it does not come back. */
  killPod(name: string): Promise<void>;
  /** `node1`, `pod-<name>`, … */
  namespace(place: string): NamedNamespace;
  /** Socket of a node's manager. */
  managerUrl(node?: NodeName): string;
  /** Socket of the authority that says who is who on a node. */
  identityUrl(node?: NodeName): string;
  /** What the running process of a client said of an interface, or says within 20 s. */
  established(client: string, interfaceName: string): Promise<Established>;
  /** A hand-made workload of this node (default node1) in a namespace of the mesh or another one; ended with the mesh at the latest. */
  workload(name: string, where: string | NamedNamespace, node?: NodeName): Promise<Workload>;
  /** Makes packets between the clusters vanish, all or some; in place of an earlier cut. */
  cut(what?: Cut): Promise<void>;
  /** Ends the cut. */
  mend(): Promise<void>;
}

const READY_WITHIN_MS = 30_000;
const LOGS = process.env["NSM_TEST_LOGS"];

/** Resolves when managers serve, and forwarders, endpoints and wires of clients are there. */
export async function startMesh(options: MeshOptions): Promise<Mesh> {
  const run = `t${randomInt(36 ** 6).toString(36)}`;
  const topology = meshTopology(run, options);
  const running = new Map<string, DaemonProcess>();
  const all: DaemonProcess[] = [];
  const workloads = new AsyncDisposableStack();
  const ownsWireGuardFolder = !existsSync(WIREGUARD_FOLDER);
  await using cleanUp = new AsyncDisposableStack();
  cleanUp.defer(() => {
    if (LOGS !== undefined) for (const each of all) writeLog(LOGS, run, each);
  });
  cleanUp.defer(() => removeMesh(topology, running, ownsWireGuardFolder));
  cleanUp.use(workloads);

  for (const folder of foldersOf(topology.sites))
    mkdirSync(join(topology.folder, folder), { recursive: true, mode: 0o700 });
  mkdirSync(WIREGUARD_FOLDER, { recursive: true }); // the first wireguard-go would make it, and nobody remove it
  await Promise.all([makeNamespaces(topology, markedEnvironment(run)), warmUp()]);
  writeRegistrations(topology, (site) => [
    ...workloadsOf(site, options),
    ...(isLinked(options) ? [operator(site)] : []),
  ]);
  writeFiles(topology);
  if (options.floating === true) await joinFloating(topology, markedEnvironment(run));

  const fullName = (place: string) => namespaceOf(run, place);
  const start = (part: Part, env: Readonly<Record<string, string>> = {}) => {
    const standIn = part.role === "identity" ? options.authority : undefined;
    const process = startDaemon({
      ...(standIn === undefined
        ? { nsm: options.nsm, command: part.command ?? [part.role] }
        : { nsm: [execPath, join(import.meta.dirname, standIn)], command: [] }),
      name: part.name,
      netns: namespaceFile(fullName(part.place)),
      gid: part.gid,
      capabilities: capabilitiesOf(part),
      env: { ...definedOf(markedEnvironment(run)), ...part.env, ...env },
    });
    running.set(part.name, process);
    all.push(process);
    return process;
  };
  const daemon = (name: string) => {
    const found = running.get(name);
    if (found === undefined) throw new Error(`${name} was not started`);
    return found;
  };
  const later = new Set(
    [...(options.endpoints ?? []), ...(options.clients ?? [])].flatMap(({ name, started = true }) =>
      started ? [] : [name],
    ),
  );
  // Daemons wait for their identity only so long, and a busy machine may start the authority last.
  const {
    authority = [],
    daemons = [],
    workloads: ends = [],
  } = Object.groupBy(topology.parts, ({ role }) =>
    role === "identity" ? "authority" : role === "nse" || role === "nsc" ? "workloads" : "daemons",
  );
  await Promise.all(authority.map((part) => start(part).waitFor("identity serves", READY_WITHIN_MS)));
  for (const part of daemons) start(part);
  if (isLinked(options)) await link(topology, options);
  for (const part of ends) if (!later.has(part.name)) start(part);
  await Promise.all([...running.values()].map((each) => isReady(each, topology)));

  const resources = cleanUp.move();
  return {
    folder: topology.folder,
    daemon,
    start: (name, env) => start(partOf(topology, name), env),
    async restart(...names) {
      await Promise.all(names.map((name) => daemon(name).kill()));
      for (const name of names) start(partOf(topology, name));
    },
    async killPod(name) {
      const namespace = fullName(partOf(topology, name).place);
      const inode = netnsOfFile(namespaceFile(namespace));
      const inside = findProcesses((pid) => netnsOf(pid) === inode);
      signalAll(inside, "SIGKILL");
      await waitUntilGone(inside, 3000);
      await removeNamespaces([namespace], markedEnvironment(run));
    },
    namespace: (place) => namespaceNamed(fullName(place)),
    managerUrl: (node = "node1") => managerUrl(topology.folder, node),
    identityUrl: (node = "node1") => identityUrl(topology.folder, siteOf(topology, node).authority),
    established: (client, interfaceName) => established(daemon(client), interfaceName),
    async workload(name, where, node = "node1") {
      const workload = await startWorkload({
        netns: typeof where === "string" ? fullName(where) : where.name,
        gid: gidOfWorkload(options, name),
        identityUrl: identityUrl(topology.folder, siteOf(topology, node).authority),
        managerUrl: managerUrl(topology.folder, node),
        env: markedEnvironment(run),
      });
      return workloads.use(workload);
    },
    cut: (what = "everything") => cutClusters(run, what, markedEnvironment(run)),
    mend: () => mendClusters(run, markedEnvironment(run)),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

async function link(topology: Topology, { exports: { east = [], west = [] } = {} }: MeshOptions) {
  const signal = AbortSignal.timeout(READY_WITHIN_MS);
  await linkClusters(topology, { exports: { east, west }, say: () => undefined, signal });
}

/** Lines of a process that are not there yet when this is called: `await fresh(daemon)("wire established")`. */
export function fresh(daemon: DaemonProcess) {
  const old = new Set(daemon.log);
  return (matches: string | ((line: LogLine) => boolean), withinMs = 20_000): Promise<LogLine> => {
    const test = typeof matches === "string" ? (line: LogLine) => line.msg.includes(matches) : matches;
    return daemon.waitFor((line) => !old.has(line) && test(line), withinMs);
  };
}

async function isReady(process: DaemonProcess, topology: Topology): Promise<void> {
  const { role, name, env } = partOf(topology, process.name);
  switch (role) {
    case "nsmgr":
      await process.waitFor("manager serves", READY_WITHIN_MS);
      return;
    case "forwarder":
      await process.waitFor(`forwarder ${name} registered`, READY_WITHIN_MS);
      return;
    case "nse":
      await process.waitFor(`endpoint ${env["NSM_NAME"] ?? name} registered`, READY_WITHIN_MS);
      return;
    case "nsc":
      for (const index of (env["NSM_NETWORK_SERVICES"] ?? "").split(",").keys())
        await process.waitFor(
          ({ msg, connection }) => msg === "wire established" && connection === `${name}-${index}`,
          READY_WITHIN_MS,
        );
      return;
    case "proxy":
      await process.waitFor("proxy serves", READY_WITHIN_MS);
      return;
    case "identity":
    case "registry":
  }
}

async function established(client: DaemonProcess, interfaceName: string): Promise<Established> {
  const line = await client.waitFor(
    (each) => each.msg === "wire established" && each["interface"] === interfaceName,
    20_000,
  );
  return wireOf(line);
}

function partOf(topology: Topology, name: string): Part {
  const part = topology.parts.find((each) => each.name === name);
  if (part === undefined) throw new Error(`the mesh has no part ${name}`);
  return part;
}

function siteOf(topology: Topology, node: NodeName): Site {
  const site = topology.sites.find(({ nodes }) => nodes.includes(node));
  if (site === undefined) throw new Error(`the mesh has no ${node}`);
  return site;
}

function writeLog(folder: string, run: string, { name, pid, log }: DaemonProcess): void {
  const lines = log.map((line) => `${JSON.stringify(line)}\n`);
  writeFileSync(join(folder, `${run}-${name}-${pid}.log`), lines.join(""));
}

function workloadsOf({ trustDomain }: Site, options: MeshOptions) {
  return (options.workloads ?? []).map((name) => ({
    id: `spiffe://${trustDomain}/workload/${name}`,
    match: { uid: 0, gid: gidOfWorkload(options, name) },
  }));
}

function definedOf(env: NodeJS.ProcessEnv): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).flatMap(([key, value]): [string, string][] =>
      value === undefined ? [] : [[key, value]],
    ),
  );
}

/** Throws when something is left, or when a process that was asked to stop failed. */
async function removeMesh(
  topology: Topology,
  running: ReadonlyMap<string, DaemonProcess>,
  ownsWireGuardFolder: boolean,
): Promise<void> {
  const driver = processId(process.pid);
  if (driver === undefined) throw new Error("/proc does not show this process");
  const parts = [...running].flatMap(([name, daemon]) => {
    const id = processId(daemon.pid);
    const { role, place } = partOf(topology, name);
    return id === undefined ? [] : [{ ...id, name, role, namespace: namespaceOf(topology.run, place) }];
  });
  const clean = await removeRun({
    run: topology.run,
    driver,
    startedAt: "",
    namespaces: topology.places.map((place) => namespaceOf(topology.run, place)),
    ownsWireGuardFolder,
    parts,
  });
  if (!clean) throw new Error(`something of ${topology.run} is left in ${topology.folder}`);
  for (const { name } of parts) {
    const how = await running.get(name)?.ended;
    if (how !== 0) throw new Error(`${name} ended with ${String(how)} when the mesh was stopped`);
  }
}
