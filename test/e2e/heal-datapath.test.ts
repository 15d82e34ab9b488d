/** Endpoints that are there but serve no more: frozen, or behind a data path that is dead. Their clients go on with another one. */
import { beforeAll, expect, test } from "vitest";
import { fresh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { startEcho, startStream } from "../support/udp.ts";
import { deviceIn, devicesIn, pingFrom } from "../support/wires.ts";
import { addressOf, wishFor } from "../support/wishes.ts";
import { Refusal } from "../support/workload.ts";
import type { Workload } from "../support/workload.ts";

const HEALED_WITHIN_MS = 5000;
/** Odd: the tests after it begin at the other endpoint. */
const FREEZES = 5;
/** Each has addresses for one client. */
const HERE = { name: "here", address: "172.16.1.0", client: "172.16.1.1" } as const;
const THERE = { name: "there", address: "172.16.2.0", client: "172.16.2.1" } as const;

let other: Workload;
const mesh = useMesh({
  endpoints: [
    { name: "here", service: "echo", prefixes: "172.16.1.0/31" },
    { name: "there", node: "node2", service: "echo", prefixes: "172.16.2.0/31", started: false },
  ],
  clients: [{ name: "client", services: "kernel://echo/nsm-1" }],
  workloads: ["other"],
  pods: ["pod-other"],
  env: { NSM_IPAM_POLICY: "strict" },
});
beforeAll(async () => {
  other = await mesh.workload("other", "pod-other");
  await mesh.established("client", "nsm-1");
  mesh.start("there");
  await mesh.daemon("there").waitFor("endpoint there registered");
});

const pod = (name: string) => mesh.namespace(`pod-${name}`);

/** Waits until the client has a wire to `next`, whose data path works, and the endpoint left behind has no device. */
async function expectHealed(said: ReturnType<typeof fresh>, left: string, next: string, target: string) {
  await said(({ msg, nse }) => msg === "wire established" && nse === next, HEALED_WITHIN_MS);
  expect(devicesIn(pod("client"))).toHaveLength(1);
  expect(await pingFrom(pod("client"), target)).toMatchObject({ received: 5 });
  await eventually(`no device of ${left}`, () => devicesIn(pod(left)).length === 0);
}

test("data path and control plane fine: the wire stays where it is", async () => {
  const { ifindex } = deviceIn(pod("client"), "nsm-1");
  const said = mesh.daemon("client").log.length;
  await pingFrom(pod("client"), "172.16.1.0", 20);
  expect(deviceIn(pod("client"), "nsm-1").ifindex).toBe(ifindex);
  expect(mesh.daemon("client").log.slice(said)).toEqual([]);
});

test("5 % of all packets lost each way: the wire stays where it is", async () => {
  const from = mesh.daemon("client").log.length;
  const nft = (command: string) => pod("client").exec("nft", command);
  nft("add table inet loss");
  for (const [hook, device] of [
    ["input", "iifname"],
    ["output", "oifname"],
  ]) {
    nft(`add chain inet loss ${hook} { type filter hook ${hook} priority 0; }`);
    nft(`add rule inet loss ${hook} ${device} nsm-1 numgen random mod 100 < 5 counter drop`);
  }
  try {
    const { sent, received } = await pingFrom(pod("client"), "172.16.1.0", 1000);
    expect(received).toBeLessThan(sent);
  } finally {
    nft("delete table inet loss");
  }
  expect(mesh.daemon("client").log.slice(from)).toEqual([]);
});

test.for(Array.from({ length: FREEZES }, (_, i) => ({ freeze: i + 1 })))(
  "T20, $freeze: a frozen endpoint is replaced, delivers nothing from then on, and keeps no address when it wakes",
  async ({ freeze }) => {
    const [frozen, next] = freeze % 2 === 1 ? ([HERE, THERE] as const) : ([THERE, HERE] as const);
    const said = fresh(mesh.daemon("client"));
    using heard = startEcho(pod("client"), "0.0.0.0");
    const stream = startStream(pod(frozen.name), frozen.address, frozen.client, heard.port);
    await eventually("packets of the endpoint arrive", () => heard.received > 0);
    mesh.daemon(frozen.name).signal("SIGSTOP");
    try {
      await expectHealed(said, frozen.name, next.name, next.address);
      const { received } = heard;
      mesh.daemon(frozen.name).signal("SIGCONT");
      // It serves again: another client gets the only address that it has, and that by name.
      await eventually("it has its address", () => isServedBy(frozen), HEALED_WITHIN_MS);
      expect(heard.received).toBe(received);
      expect(await pingFrom(pod("client"), next.address, 20)).toMatchObject({ received: 20 });
      expect(devicesIn(pod(frozen.name))).toEqual([]);
    } finally {
      mesh.daemon(frozen.name).signal("SIGCONT");
      await stream.stop();
    }
  },
);

async function isServedBy({ name, client }: typeof HERE | typeof THERE): Promise<boolean> {
  const wish = wishFor(other, { service: "echo" });
  if (wish.connection !== undefined) wish.connection.networkServiceEndpointName = name;
  const wire = await other.request(wish).catch((error: unknown) => {
    if (error instanceof Refusal) return undefined;
    throw error;
  });
  if (wire === undefined) return false;
  expect(addressOf(wire, "src")).toBe(client);
  await other.close(wire);
  return true;
}

test("data plane broken, control plane fine: another endpoint is chosen", async () => {
  const said = fresh(mesh.daemon("client"));
  const [device] = devicesIn(pod("there"));
  pod("there").ip(`link set ${device?.name} down`);
  await expectHealed(said, "there", "here", "172.16.1.0");
  expect(deviceIn(pod("client"), "nsm-1").addresses).toEqual(["172.16.1.1/32"]);
});

test("data plane broken, and nobody else serves: the same endpoint is chosen again and its wire mended", async () => {
  await mesh.daemon("there").stop();
  const said = fresh(mesh.daemon("client"));
  const [device] = devicesIn(pod("here"));
  pod("here").ip(`link set ${device?.name} down`);
  await said(({ msg, nse }) => msg === "wire established" && nse === "here", HEALED_WITHIN_MS);
  expect(await pingFrom(pod("client"), "172.16.1.0")).toMatchObject({ received: 5 });
});
