/** Wires between two linked clusters: none before something is exported, over WireGuard then, and none after the link. */
import { execFileSync } from "node:child_process";
import { expect, test, vi } from "vitest";
import { LINKING, linksOf, runNsmIn, tokenOf } from "../support/link-commands.ts";
import { useMesh } from "../support/use-mesh.ts";
import { deviceIn, devicesIn, pingFrom } from "../support/wires.ts";

const mesh = useMesh({
  ...LINKING,
  nodes: 1,
  endpoints: [
    { name: "gateway", node: "node3", service: "gateway", prefixes: "172.16.7.0/24" },
    { name: "secret", node: "node3", service: "secret", prefixes: "172.16.8.0/24" },
  ],
  clients: [
    { name: "client", services: "kernel://gateway@west/nsm-1", started: false },
    { name: "spy", services: "kernel://secret@west/nsm-1", started: false },
  ],
});

const PATIENCE = { timeout: 60_000, interval: 200 };

test("a client reaches what the linked cluster exports, over WireGuard through both proxies", async () => {
  expect(await runNsmIn(mesh, "west", "link", "join", await tokenOf(mesh, "east"))).toMatchObject({
    code: 0,
  });
  expect(await runNsmIn(mesh, "west", "export", "gateway", "--to", "east")).toMatchObject({ code: 0 });
  await vi.waitFor(
    async () =>
      expect(await linksOf(mesh, "east")).toMatchObject([{ domain: "west", offeredToUs: ["gateway"] }]),
    PATIENCE,
  );
  expect(await linksOf(mesh, "west")).toMatchObject([{ domain: "east", offeredByUs: ["gateway"] }]);

  mesh.start("client");
  const { path } = await mesh.established("client", "nsm-1");
  expect(path).toEqual([
    "client",
    "nsmgr-node1",
    "forwarder-node1",
    "proxy-east",
    "proxy-west",
    "nsmgr-node3",
    "forwarder-node3",
    "gateway",
  ]);
  const pod = mesh.namespace("pod-client");
  expect(deviceIn(pod, "nsm-1").kind).toMatch(/^(wireguard|tun)$/);
  expect((await pingFrom(pod, "172.16.7.0")).received).toBe(5);
});

test("what is not exported does not exist for the other cluster", async () => {
  const spy = mesh.start("spy");
  const { err } = await spy.waitFor("request failed", 30_000);
  expect(err).toMatchObject({ code: "NOT_FOUND" });
  await spy.stop();
  expect(devicesIn(mesh.namespace("pod-secret"))).toEqual([]);
});

test("proxies that are killed and started again leave the wire as it is", async () => {
  const pod = mesh.namespace("pod-client");
  const { ifindex } = deviceIn(pod, "nsm-1");
  await mesh.restart("proxy-east", "proxy-west");
  for (const name of ["proxy-east", "proxy-west"]) await mesh.daemon(name).waitFor("proxy serves", 20_000);
  await vi.waitFor(
    async () => expect(await linksOf(mesh, "east")).toMatchObject([{ state: "up" }]),
    PATIENCE,
  );
  expect((await pingFrom(pod, "172.16.7.0")).received).toBe(5);
  expect(deviceIn(pod, "nsm-1").ifindex).toBe(ifindex);
});

test("a link that is removed ends the wires that went over it, at both ends", async () => {
  expect(await runNsmIn(mesh, "east", "link", "remove", "west")).toMatchObject({ code: 0 });
  await vi.waitFor(() => expect(devicesIn(mesh.namespace("pod-gateway"))).toEqual([]), PATIENCE);
  expect(await linksOf(mesh, "west")).toEqual([]);
  await mesh.daemon("client").stop();
  await vi.waitFor(() => expect(devicesIn(mesh.namespace("pod-client"))).toEqual([]), PATIENCE);
});

test("a cluster that nobody can dial gives its services all the same: Requests come through the tunnel, packets do not", async () => {
  const inWest = (...words: readonly string[]) =>
    execFileSync("nsenter", [`--net=/run/netns/${mesh.namespace("node3").name}`, "--", "nft", ...words]);
  inWest("add table inet closed");
  try {
    inWest("add chain inet closed in { type filter hook input priority 0 ; }");
    inWest("add rule inet closed in iifname underlay tcp dport 5004 tcp flags & (syn|ack) == syn drop");
    const joined = await runNsmIn(mesh, "west", "link", "join", await tokenOf(mesh, "east"));
    expect(joined.code, joined.stderr).toBe(0);
    await vi.waitFor(
      async () =>
        expect(await linksOf(mesh, "east")).toMatchObject([{ way: "tunnel", offeredToUs: ["gateway"] }]),
      PATIENCE,
    );
    mesh.start("client");
    const { path } = await mesh.established("client", "nsm-1");
    expect(path.slice(3, 5)).toEqual(["proxy-east", "proxy-west"]);
    expect((await pingFrom(mesh.namespace("pod-client"), "172.16.7.0")).received).toBe(5);
    await mesh.daemon("client").stop();
    expect(devicesIn(mesh.namespace("pod-gateway"))).toEqual([]);
  } finally {
    inWest("delete table inet closed");
  }
  expect(await runNsmIn(mesh, "west", "link", "remove", "east")).toMatchObject({ code: 0 });
});
