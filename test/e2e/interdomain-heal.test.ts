/**
 * Parts of two domains that die under wires between them: the rows of the Go suite "interdomain, heal". What is killed is started
 * again; numbered datagrams are on their way all the time. After each row another client is served, too, and the end of both leaves
 * nothing.
 */
import { expect, test } from "vitest";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { deviceIn, devicesIn, pingFrom, startTraffic } from "../support/wires.ts";

const HEALED_WITHIN_MS = 60_000;
/** Far longer than all daemons together need to start on a busy machine. */
const LIFE = "120s";

const endpoints = [
  { name: "near", service: "near", prefixes: "[172.16.1.2/31,172.16.1.4/31]" },
  {
    name: "float",
    service: "float@floating",
    prefixes: "[172.16.2.2/31,172.16.2.4/31]",
    env: { NSM_NAME: "float@floating" },
  },
] as const;
const services = "kernel://near@west/nsm-1,kernel://float@floating/nsm-2";
const wires = endpoints.map(({ name }, i) => ({
  device: `nsm-${i + 1}`,
  pod: `pod-${name}`,
  target: `172.16.${i + 1}.2`,
  source: `172.16.${i + 1}.3`,
}));

const mesh = useMesh({
  clusters: "unified",
  nodes: 1,
  floating: true,
  endpoints: [
    ...endpoints.map((endpoint) => ({ ...endpoint, node: "node3" as const })),
    {
      name: "spare",
      node: "node3",
      service: "float@floating",
      prefixes: "172.16.2.102/31",
      env: { NSM_NAME: "spare@floating" },
      started: false,
    },
  ],
  clients: [
    { name: "client", services, started: false },
    { name: "visitor", services, started: false },
  ],
  tokenLifetime: LIFE,
  clientGrace: LIFE,
});

const ends = () =>
  ["pod-client", ...wires.map(({ pod }) => pod)].flatMap((pod) => devicesIn(mesh.namespace(pod)));

/** Pings over all wires of a client, both ways. */
async function expectAnswers(client: string) {
  const pod = mesh.namespace(`pod-${client}`);
  for (const [i, wire] of wires.entries()) {
    const { peerAddresses } = await mesh.established(client, `nsm-${i + 1}`);
    const { addresses } = deviceIn(pod, wire.device);
    expect(await pingFrom(pod, plain(peerAddresses[0]))).toMatchObject({ received: 5 });
    expect(await pingFrom(mesh.namespace(wire.pod), plain(addresses[0]))).toMatchObject({ received: 5 });
  }
}

const plain = (address = "") => address.split("/")[0] ?? "";

/** The authority first, as an operator would: daemons wait for their identity only so long. */
async function killAndStart(names: readonly string[]) {
  await Promise.all(names.map((name) => mesh.daemon(name).kill()));
  const isAuthority = (name: string) => name === "identity";
  for (const name of names.filter(isAuthority)) await mesh.start(name).waitFor("identity serves", 30_000);
  for (const name of names.filter((each) => !isAuthority(each))) mesh.start(name);
}

async function stopAll(...clients: readonly string[]) {
  for (const client of clients) expect(await mesh.daemon(client).stop()).toBe(0);
  await mesh.expectAsStarted();
}

const FORWARDERS = ["forwarder-node1", "forwarder-node3"];
const MANAGERS = ["nsmgr-node1", "nsmgr-node3"];
const PROXIES = ["proxy-east", "proxy-west"];
const EVERYTHING = [
  "identity",
  "registry-east",
  "registry-west",
  "registry-floating",
  ...PROXIES,
  ...MANAGERS,
  ...FORWARDERS,
];

test.for([
  { row: "heal_interdomain-nsmgr-death", killed: MANAGERS },
  { row: "heal_interdomain-proxy-nsmgr-death", killed: PROXIES },
  { row: "heal_interdomain-registry-death", killed: ["registry-west"] },
  { row: "heal_floating-forwarder-death", killed: FORWARDERS },
  { row: "heal_floating-nsm-system-death", killed: EVERYTHING },
])("$row: no packet is lost, the devices are the same, and others are served", async ({ killed }) => {
  mesh.start("client");
  await expectAnswers("client");
  const devices = ends();
  expect(devices).toHaveLength(4);
  const from = mesh.namespace("pod-client");
  const traffic = wires.map(({ pod, source, target }) =>
    startTraffic({ from, source, to: mesh.namespace(pod), target }),
  );

  await killAndStart(killed);
  for (const name of killed.filter((each) => FORWARDERS.includes(each)))
    await eventually(
      `${name} adopts its wires`,
      () => mesh.daemon(name).log.filter(({ msg }) => msg === "wire adopted").length === wires.length,
      HEALED_WITHIN_MS,
    );
  mesh.start("visitor");
  await expectAnswers("visitor");

  for (const stream of traffic) {
    const { sent, lost } = await stream.stop();
    expect(sent).toBeGreaterThan(100);
    expect(lost).toBe(0);
  }
  await mesh.daemon("visitor").stop();
  await eventually("only the first client's devices are left", () => ends().length === devices.length);
  expect(ends()).toEqual(devices);
  await expectAnswers("client");
  await stopAll("client");
});

test("heal_floating-nse-death: the wire goes to another endpoint of the service, the other wire stays", async () => {
  mesh.start("client");
  await expectAnswers("client");
  const pod = mesh.namespace("pod-client");
  const { ifindex } = deviceIn(pod, "nsm-1");
  await mesh.daemon("float").kill();
  await mesh.start("spare").waitFor("endpoint spare@floating registered", HEALED_WITHIN_MS);
  // Beside the ones of before, which the endpoint does not mind.
  await eventually(
    "the client has an address of the spare endpoint",
    () => deviceIn(pod, "nsm-2").addresses.includes("172.16.2.103/32"),
    HEALED_WITHIN_MS,
  );
  expect(await pingFrom(pod, "172.16.2.102")).toMatchObject({ received: 5 });
  expect(await pingFrom(mesh.namespace("pod-spare"), "172.16.2.103")).toMatchObject({ received: 5 });
  expect(devicesIn(mesh.namespace("pod-float"))).toEqual([]);
  expect(deviceIn(pod, "nsm-1").ifindex).toBe(ifindex);
  expect(await pingFrom(pod, "172.16.1.2")).toMatchObject({ received: 5 });
  await mesh.daemon("client").stop();
  expect(await mesh.daemon("spare").stop()).toBe(0);
  await mesh.start("float").waitFor("endpoint float@floating registered", HEALED_WITHIN_MS);
  await mesh.expectAsStarted();
});
