/** Services with endpoints in two clusters: weights, nearness, tiers, a chain across, and a cluster that is away (docs/protocol.md, "Services of several domains"). */
import { readFileSync, writeFileSync } from "node:fs";
import { beforeAll, expect, test } from "vitest";
import { parseEstablished } from "../../cli/demo/wires.ts";
import { chainService } from "../support/chains.ts";
import { gidOfWorkload } from "../support/mesh-topology.ts";
import type { MeshOptions } from "../support/mesh-topology.ts";
import { fresh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import { runNsm } from "../support/nsm.ts";
import { useMesh } from "../support/use-mesh.ts";
import { deviceIn, devicesIn, pingFrom } from "../support/wires.ts";
import { wishFor } from "../support/wishes.ts";
import type { Workload } from "../support/workload.ts";

/** Longer than it takes the registry to notice that a domain is away. */
const FAILBACK_MS = 6000;
const MOVED_WITHIN_MS = 20_000;
/** Far more than the second that it takes (most of it until the client notices), far less than anybody's patience with the dead. */
const MOVED_SOON_MS = 5000;
/** Who is away is said to be away after seconds; a silent watch is noticed by its session. */
const KNOWN_WITHIN_MS = 60_000;

const service = (name: string, spec = "exportTo: [east]") =>
  `kind: NetworkService\nmetadata: { name: ${name} }\nspec: { ${spec} }\n`;
const colours = (blue: number, green: number) => {
  const routes = [`blue }, weight: ${blue} }`, `green }, weight: ${green} }`];
  const all = routes.map((route) => `{ destination_selector: { colour: ${route}`).join(", ");
  return service("colours", `importFrom: [west], matches: [{ routes: [${all}] }]`);
};
const CHAIN = chainService("chain", "IP", ["firewall", "gateway"]);
const servicesOfEast = (blue: number, green: number) =>
  [
    colours(blue, green),
    service("tiers", "importFrom: [west]"),
    service("near", "importFrom: [west]"),
    `${CHAIN}  importFrom: [west]\n`,
  ].join("---\n");
const SERVICES_OF_WEST = [
  ...["colours", "tiers", "near"].map((name) => service(name)),
  `${CHAIN}  exportTo: [east]\n`,
];

const offers = (service: string, name: string, labels: string, node: "node1" | "node3", subnet: number) => ({
  name,
  service,
  node,
  prefixes: `172.16.${subnet}.0/24`,
  env: {
    NSM_LABELS: labels,
    NSM_REGISTER_SERVICE: "false",
    // Clients that come back may bring addresses that others have by then.
    ...(service === "tiers" && { NSM_IPAM_POLICY: "strict" }),
  },
  started: false, // not all at once
});

const options: MeshOptions = {
  clusters: true,
  nodes: 1,
  networkServices: { east: servicesOfEast(1, 1), west: SERVICES_OF_WEST.join("---\n") },
  endpoints: [
    offers("colours", "blue", "colour:blue", "node1", 1),
    offers("colours", "green", "colour:green", "node3", 2),
    offers("tiers", "primary", "nsm.io/tier:0", "node3", 3),
    offers("tiers", "backup", "nsm.io/tier:1", "node1", 4),
    offers("near", "left", "nsm.io/locality:prefer", "node1", 5),
    offers("near", "right", "nsm.io/locality:prefer", "node3", 6),
    { ...offers("chain", "firewall", "app:firewall", "node1", 0), kind: "passthrough" },
    offers("chain", "gateway", "app:gateway", "node3", 7),
  ],
  clients: [
    { name: "careful", services: "kernel://tiers/nsm-1", started: false },
    { name: "late", services: "kernel://tiers/nsm-1", started: false },
    { name: "nearby", services: "kernel://near/nsm-1,kernel://near/nsm-2", started: false },
    { name: "chained", services: "kernel://chain/nsm-1", started: false },
  ],
  workloads: ["painter", "watcher"],
  pods: ["pod-painter"],
  env: (part) =>
    part.startsWith("nsmgr")
      ? { NSM_FAILBACK_DELAY: `${FAILBACK_MS}ms`, NSM_OPERATOR_IDS: "/workload/watcher" }
      : {},
};

const mesh = useMesh(options);
let painter: Workload;
beforeAll(async () => {
  painter = await mesh.workload("painter", "pod-painter");
});

const explain = (...args: string[]) =>
  runNsm({
    netns: mesh.namespace("node1").name,
    gid: gidOfWorkload(options, "watcher"),
    env: {
      SPIFFE_ENDPOINT_SOCKET: `unix://${mesh.folder}/identity-east.sock`,
      NSM_CONNECT_TO: mesh.managerUrl(),
    },
    args: ["explain", ...args],
  });
const explained = async (line: RegExp, withinMs: number) =>
  await eventually(
    String(line),
    async () => line.test((await explain("somebody", "tiers")).stdout),
    withinMs,
  );

function variableOf(part: string, name: string): string {
  const variables = readFileSync(`/proc/${mesh.daemon(part).pid}/environ`, "utf8").split("\0");
  return variables.find((each) => each.startsWith(`${name}=`))?.slice(name.length + 1) ?? "";
}

/** Starts endpoints, and waits until they have registered. */
const start = async (...names: readonly string[]) => {
  for (const name of names) await mesh.start(name).waitFor(`endpoint ${name} registered`, 30_000);
};

/** Endpoints of four wires that are asked for, one after the other. */
async function four(): Promise<readonly string[]> {
  const chosen: string[] = [];
  for (let i = 0; i < 4; i++) {
    const wire = await painter.request(wishFor(painter, { service: "colours", id: `client-${i}` }));
    chosen.push(wire.networkServiceEndpointName);
    await painter.close(wire);
  }
  return chosen.toSorted();
}

/** Waits until the endpoint that a client has said last that its wire leads to answers; `subnet`: of the endpoint's own addresses. */
async function answers(client: string, subnet: number): Promise<void> {
  const line = mesh.daemon(client).log.findLast(({ msg }) => msg === "wire established");
  const peers = parseEstablished(JSON.stringify(line))?.peerAddresses ?? [];
  const own = peers.findLast((address) => address.startsWith(`172.16.${subnet}.`))?.split("/")[0] ?? "";
  const pod = mesh.namespace(`pod-${client}`);
  await eventually(`${own} answers ${client}`, async () => (await pingFrom(pod, own)).received === 5, 20_000);
}

/** Waits until a client that was there before says that it has a wire to `nse`; milliseconds from the cause to that. */
async function moved(client: string, nse: string, cause: () => Promise<unknown>, withinMs = MOVED_WITHIN_MS) {
  const said = fresh(mesh.daemon(client));
  await cause();
  const startedAt = Date.now();
  await said((line) => line.msg === "wire established" && line["nse"] === nse, withinMs);
  return Date.now() - startedAt;
}

test("weights split new wires between the clusters, and are shifted by the file alone", async () => {
  await start("blue", "green");
  await eventually("both are known", async () =>
    (await explain("somebody", "colours")).stdout.includes("green@west"),
  );
  expect(await four()).toEqual(["blue", "blue", "green@west", "green@west"]);
  writeFileSync(variableOf("registry-east", "NSM_NETWORK_SERVICES_PATH"), servicesOfEast(1, 3));
  await eventually(
    "the new weights",
    async () => (await explain("somebody", "colours")).stdout.includes("75 %"),
    MOVED_WITHIN_MS,
  );
  expect((await four()).filter((name) => name === "green@west")).toHaveLength(3);
});

test("nsm explain shows candidates of the other cluster, and why they are taken or not", async () => {
  await start("left", "right", "primary", "backup");
  const { code, stdout } = await explain("somebody", "near", "--label", "nodeName=node1");
  expect(code).toBe(0);
  expect(stdout).toMatch(/^left +candidate +turn +0 +node +100 % +asked first/m);
  expect(stdout).toMatch(/^right@west +candidate +farther +0 +any +- +in the domain west: asked when left/m);
  await explained(/^primary@west +candidate +turn +0 /m, MOVED_WITHIN_MS);
  expect((await explain("somebody", "tiers")).stdout).toMatch(/^backup +candidate +lower-tier +1 /m);
});

test("the own cluster serves first where nearness counts, and the other one when nobody is left here", async () => {
  mesh.start("nearby");
  for (const device of ["nsm-1", "nsm-2"])
    expect(await mesh.established("nearby", device)).toMatchObject({ nse: "left" });
  await moved("nearby", "right@west", () => mesh.daemon("left").kill());
  await mesh.daemon("nearby").stop();
});

test("a chain across: a firewall of this cluster leads to a gateway of the other one", async () => {
  await start("gateway", "firewall");
  mesh.start("chained");
  const { path, nse } = await mesh.established("chained", "nsm-1");
  const here = ["nsmgr-node1", "forwarder-node1"];
  const across = [...here, "proxy-east", "proxy-west", "nsmgr-node3", "forwarder-node3"];
  expect(path).toEqual(["chained", ...here, "firewall", ...across, "gateway"]);
  expect(nse).toBe("firewall");
  await answers("chained", 7);
  const [far] = devicesIn(mesh.namespace("pod-firewall")).filter(({ kind }) => kind !== "veth");
  expect(far?.kind).toMatch(/^(wireguard|tun)$/);
  await mesh.daemon("chained").stop();
  await eventually("no device at the gateway", () => devicesIn(mesh.namespace("pod-gateway")).length === 0);
});

test("clients leave a cluster that is cut off, new ones do not wait for it, and all return when it has been back for a while", async () => {
  mesh.start("careful");
  expect(await mesh.established("careful", "nsm-1")).toMatchObject({ nse: "primary@west" });
  expect(deviceIn(mesh.namespace("pod-careful"), "nsm-1").kind).toMatch(/^(wireguard|tun)$/);
  await answers("careful", 3);
  const tookMs = await moved("careful", "backup", () => mesh.cut());
  expect(tookMs).toBeLessThan(MOVED_SOON_MS);
  await answers("careful", 4);
  mesh.start("late");
  expect(await mesh.established("late", "nsm-1")).toMatchObject({ nse: "backup" });
  await explained(
    /^primary@west +candidate +domain-away .*the domain west does not answer/m,
    KNOWN_WITHIN_MS,
  );
  const back = Promise.all(
    ["careful", "late"].map((client) =>
      moved(client, "primary@west", () => Promise.resolve(), KNOWN_WITHIN_MS),
    ),
  );
  const mendedAt = Date.now();
  await mesh.mend();
  await back;
  expect(Date.now() - mendedAt).toBeGreaterThanOrEqual(FAILBACK_MS);
  for (const client of ["careful", "late"]) await answers(client, 3);
}, 240_000);

test("daemons of the other cluster that hang cost new wires little, and its end moves the old ones", async () => {
  const daemons = ["proxy-west", "registry-west", "nsmgr-node3", "forwarder-node3"];
  for (const name of daemons) mesh.daemon(name).signal("SIGSTOP");
  await mesh.daemon("late").stop();
  mesh.start("late");
  expect(await mesh.established("late", "nsm-1")).toMatchObject({ nse: "backup" });
  // Packets pass meanwhile.
  await answers("careful", 3);
  const tookMs = await moved("careful", "backup", async () => {
    await Promise.all([...daemons.map((name) => mesh.daemon(name).kill()), mesh.killPod("primary")]);
  });
  expect(tookMs).toBeLessThan(MOVED_SOON_MS);
  await answers("careful", 4);
  // A daemon that is stopped as it starts does not end well.
  await Promise.all(daemons.map((name) => mesh.start(name).waitFor(" serves", KNOWN_WITHIN_MS)));
}, 120_000);
