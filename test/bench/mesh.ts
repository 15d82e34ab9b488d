/**
 * A mesh of its own for one section of the bench.
 *
 *     node1 ───── underlay 192.0.2.0/24 ───── node2          (one node: node1 alone)
 *       registry, nsmgr, forwarder              nsmgr, forwarder
 *     client-1 … client-n, endpoints          endpoints
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { delay } from "../../sdk/clock.ts";
import { createNamespace } from "../support/netns.ts";
import type { Namespace } from "../support/netns.ts";
import { startClient } from "./clients.ts";
import type { BenchClient } from "./clients.ts";
import type { WireWish } from "./commands.ts";
import { startDaemon } from "./daemons.ts";
import type { BenchDaemon, DaemonOptions, Launch } from "./daemons.ts";

export interface EndpointOptions {
  readonly service: string;
  readonly node: 1 | 2;
  readonly payload: "IP" | "ETHERNET";
  readonly prefix: string;
}

export interface MeshOptions {
  readonly nodes: 1 | 2;
  readonly endpoints: readonly EndpointOptions[];
  readonly clients: number;
  /** The clients run on the first node instead of in namespaces of their own. */
  readonly clientsOnNode?: boolean;
  /** Start a real `nsm nsc` as well, which finds nothing to ask for. */
  readonly withNsc?: boolean;
}

export interface BenchMesh extends AsyncDisposable {
  readonly folder: string;
  readonly clients: readonly BenchClient[];
  /** Everything that serves; the clients are not among them. */
  readonly servers: readonly BenchDaemon[];
  readonly registryUrl: string;
  server(name: string): BenchDaemon;
  endpointNs(service: string): Namespace;
}

const TRUST_DOMAIN = "bench.nsm";
const UNDERLAY = { 1: "192.0.2.1", 2: "192.0.2.2" } as const;
/** Groups of the bench's roles; see the demo for the choice of numbers. */
const FIRST_GID = 64_500;
const READY_WITHIN_MS = 30_000;
const STARTING_AT_ONCE = 4;

/** Resolves when every client has a session and every service was reached once. */
export async function startMesh(base: Launch, options: MeshOptions): Promise<BenchMesh> {
  await using stack = new AsyncDisposableStack();
  const folder = mkdtempSync(join(base.folder, "mesh-"));
  const launch = { ...base, folder };
  const nodes = ([1, 2] as const).slice(0, options.nodes);
  const spaces = new Map<string, Namespace>();
  const clientNames = Array.from({ length: options.clients }, (_, i) => `client-${i + 1}`);
  const names = [
    ...nodes.map((node) => `node${node}`),
    ...options.endpoints.map(({ service }) => service),
    ...(options.clientsOnNode === true ? [] : clientNames),
    ...(options.withNsc === true ? ["nsc"] : []),
  ];
  for (const name of names) spaces.set(name, stack.use(createNamespace(name)));
  const spaceOf = (name: string): Namespace => found(spaces.get(name), `namespace ${name}`);
  makeUnderlay(nodes.map((node) => spaceOf(`node${node}`)));

  const parts = partsOf(options, folder, spaceOf);
  const clients = clientNames.map((name, i) => ({ name, gid: FIRST_GID + parts.length + i }));
  writeRegistrations(folder, [...parts, ...clients]);
  const servers: BenchDaemon[] = [];
  for (const part of parts) {
    servers.push(stack.use(startDaemon(launch, part)));
    // The others need it at once, and everybody has only two cores.
    if (part.role === "identity") await appear(join(folder, "identity.sock"));
  }
  await appear(join(folder, "nsmgr1.sock"));
  const started: BenchClient[] = [];
  for (const client of clients) {
    const settings = { spiffeSocket: socket(folder, "identity"), managerUrl: socket(folder, "nsmgr1") };
    started.push(
      stack.use(
        startClient({
          ...client,
          ...settings,
          ns: spaceOf(options.clientsOnNode === true ? "node1" : client.name),
        }),
      ),
    );
    if (started.length % STARTING_AT_ONCE === 0) await Promise.all(started.map(({ ready }) => ready));
  }
  await Promise.all(started.map(({ ready }) => ready));
  const [first] = started;
  if (first !== undefined) for (const { service } of options.endpoints) await reach(first, wishFor(service));
  const resources = stack.move();
  return {
    folder,
    clients: started,
    servers,
    registryUrl: `tcp://${UNDERLAY[1]}:5002`,
    server: (name) =>
      found(
        servers.find((server) => server.name === name),
        `daemon ${name}`,
      ),
    endpointNs: spaceOf,
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** What a client asks for by the name of a service, one device at a time. */
export function wishFor(service: string): WireWish {
  return { service, interfaceName: "nsm-%" };
}

type Part = DaemonOptions;

function partsOf(options: MeshOptions, folder: string, spaceOf: (name: string) => Namespace): Part[] {
  const common = { SPIFFE_ENDPOINT_SOCKET: socket(folder, "identity"), NSM_LOG_LEVEL: "INFO" };
  const registryUrl = `tcp://${UNDERLAY[1]}:5002`;
  const parts: Omit<Part, "gid">[] = [
    {
      role: "identity",
      name: "identity",
      env: {
        NSM_IDENTITY_TRUST_DOMAIN: TRUST_DOMAIN,
        NSM_IDENTITY_LISTEN_ON: socket(folder, "identity"),
        NSM_IDENTITY_STATE_DIR: join(folder, "identity"),
        NSM_IDENTITY_REGISTRATIONS: join(folder, "registrations.yaml"),
      },
    },
    {
      role: "registry",
      name: "registry",
      ns: spaceOf("node1"),
      env: { ...common, NSM_LISTEN_ON: registryUrl },
    },
  ];
  for (const node of ([1, 2] as const).slice(0, options.nodes)) {
    const ns = spaceOf(`node${node}`);
    const manager = {
      NSM_NAME: `nsmgr${node}`,
      NSM_LISTEN_ON: `${socket(folder, `nsmgr${node}`)},tcp://${UNDERLAY[node]}:5001`,
      NSM_REGISTRY_URL: registryUrl,
    };
    const forwarder = {
      NSM_NAME: `forwarder${node}`,
      NSM_LISTEN_ON: socket(folder, `forwarder${node}`),
      NSM_CONNECT_TO: socket(folder, `nsmgr${node}`),
      NSM_TUNNEL_IP: UNDERLAY[node],
    };
    parts.push({ role: "nsmgr", name: `nsmgr${node}`, ns, env: { ...common, ...manager } });
    parts.push({ role: "forwarder", name: `forwarder${node}`, ns, env: { ...common, ...forwarder } });
  }
  for (const endpoint of options.endpoints) parts.push(endpointPart(endpoint, folder, spaceOf, common));
  if (options.withNsc === true)
    parts.push({
      role: "nsc",
      name: "nsc",
      ns: spaceOf("nsc"),
      env: {
        ...common,
        NSM_CONNECT_TO: socket(folder, "nsmgr1"),
        NSM_NETWORK_SERVICES: "kernel://nowhere/nsm-1",
      },
    });
  return parts.map((part, i) => ({ ...part, gid: FIRST_GID + i }));
}

function endpointPart(
  { service, node, payload, prefix }: EndpointOptions,
  folder: string,
  spaceOf: (name: string) => Namespace,
  common: Readonly<Record<string, string>>,
): Omit<Part, "gid"> {
  const env = {
    ...common,
    NSM_NAME: `nse-${service}`,
    NSM_LISTEN_ON: socket(folder, `nse-${service}`),
    NSM_CONNECT_TO: socket(folder, `nsmgr${node}`),
    NSM_SERVICE_NAMES: service,
    NSM_PAYLOAD: payload,
    NSM_CIDR_PREFIX: prefix,
  };
  return { role: "nse", name: `nse-${service}`, ns: spaceOf(service), env };
}

/** The identities that the daemons' patterns expect; a client may be called anything. */
function writeRegistrations(
  folder: string,
  parts: readonly { name: string; gid: number; role?: string }[],
): void {
  const registrations = parts
    .filter(({ role }) => role !== "identity")
    .map(({ name, gid, role = "client" }) => ({
      id: `spiffe://${TRUST_DOMAIN}/${role}/${name}`,
      match: { gid },
    }));
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "registrations.yaml"), JSON.stringify({ registrations }), { mode: 0o600 });
}

function makeUnderlay(nodes: readonly Namespace[]): void {
  const [first, second] = nodes;
  if (first === undefined) return;
  if (second !== undefined) {
    const ends = `netns ${first.name} type veth peer name underlay netns ${second.name}`;
    execFileSync("ip", `link add name underlay ${ends}`.split(" "));
  }
  const device = second === undefined ? "lo" : "underlay";
  for (const [i, node] of nodes.entries()) {
    node.ip(`addr add 192.0.2.${i + 1}/24 dev ${device}`);
    node.ip(`link set ${device} up`);
  }
}

/** Asks until the daemons have found one another. */
async function reach(client: BenchClient, wish: WireWish): Promise<void> {
  for (const end = performance.now() + READY_WITHIN_MS; ;) {
    const { failed } = await client.call("pairs", wish, 1);
    if (failed.length === 0) return;
    if (performance.now() > end) throw new Error(`${wish.service} cannot be reached: ${failed.join("; ")}`);
    await delay(100);
  }
}

async function appear(path: string): Promise<void> {
  for (const end = performance.now() + READY_WITHIN_MS; !existsSync(path);) {
    if (performance.now() > end) throw new Error(`${path} did not appear`);
    await delay(20);
  }
}

function socket(folder: string, name: string): string {
  return `unix://${folder}/${name}.sock`;
}

function found<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`there is no ${what}`);
  return value;
}
