/** Two linked clusters: nothing crosses that was not exported, and what is withdrawn ends. */
import { expect, test, vi } from "vitest";
import * as z from "zod";
import { expectNothingLeft, takeSettledInventory } from "../support/inventory.ts";
import type { Inventory } from "../support/inventory.ts";
import { LINKING, runNsmIn, tokenOf } from "../support/link-commands.ts";
import { fresh } from "../support/mesh.ts";
import { useMesh } from "../support/use-mesh.ts";
import { devicesIn, pingFrom } from "../support/wires.ts";

const mesh = useMesh({
  ...LINKING,
  endpoints: [
    { name: "gateway", node: "node3", service: "gateway", prefixes: "172.16.7.0/24" },
    { name: "hidden", node: "node3", service: "hidden", prefixes: "172.16.8.0/24" },
  ],
  clients: [
    { name: "client", services: "kernel://gateway@west/nsm-1", started: false },
    { name: "prober", services: "kernel://hidden@west/nsm-1", started: false },
  ],
  networkServices: {
    west: "kind: NetworkService\nmetadata: { name: of-file }\nspec: { exportTo: [east, '*'] }\n",
  },
});

/** Linked, without wires. */
let linked: Inventory | undefined;

/** Ten times what it may take, for a machine that is busy with other tests. */
const WITHDRAWN_WITHIN_MS = 10_000;
const PATIENCE = { timeout: 30_000, interval: 50 };
const Listed = z.object({
  services: z.array(z.object({ name: z.string(), domain: z.string(), fault: z.string().optional() })),
});
const inWest = (...args: readonly string[]) => runNsmIn(mesh, "west", ...args);
const servicesSeen = async () => {
  const args = ["get", "services", "--all-domains", "-o", "json", "--manager", mesh.managerUrl("node1")];
  const { stdout } = await runNsmIn(mesh, "east", ...args);
  return Listed.parse(JSON.parse(stdout)).services.filter(({ domain }) => domain !== "");
};

test("linked, a domain gets what the services of the other say, and nothing else", async () => {
  const joined = await inWest("link", "join", await tokenOf(mesh, "east"));
  expect(joined).toMatchObject({ code: 0 });
  await inWest("export", "none", "--to", "east"); // there is a file from now on
  await inWest("unexport", "none");
  await vi.waitFor(
    async () => expect((await servicesSeen()).map(({ name }) => name)).toEqual(["of-file"]),
    PATIENCE,
  );
  const failures = [];
  for (const [client, service] of [
    ["client", "gateway"],
    ["prober", "nowhere"],
  ] as const) {
    const daemon = mesh.start(client, { NSM_NETWORK_SERVICES: `kernel://${service}@west/nsm-1` });
    const { err } = await daemon.waitFor("request failed", 20_000);
    failures.push(JSON.stringify(err).replaceAll(service, "…").replaceAll(client, "…"));
    await daemon.stop();
  }
  // There is no telling whether it is there.
  expect(failures[0]).toBe(failures[1]);
  linked = await takeSettledInventory();
});

test("what an operator exports is listed, offered and reached, also after a restart of the proxy", async () => {
  expect(await inWest("export", "gateway", "--to", "east")).toMatchObject({
    code: 0,
    stdout: "domain east may use gateway\n",
  });
  mesh.start("client");
  const wire = await mesh.established("client", "nsm-1");
  expect(wire.nse).toBe("gateway@west");
  expect((await pingFrom(mesh.namespace("pod-client"), "172.16.7.0")).received).toBe(5);
  expect((await servicesSeen()).map(({ name }) => name)).toEqual(["gateway", "of-file"]);

  await mesh.restart("proxy-west");
  await mesh.daemon("proxy-west").waitFor("proxy serves", 20_000);
  const list = await inWest("export", "--list");
  expect(list.stdout.split("\n").map((line) => line.split(/ {2,}/))).toEqual([
    ["SERVICE", "TO", "ENDPOINTS", "SAID BY"],
    ["gateway", "east", "-", "operator"],
    ["of-file", "*", "-", "registry"],
    ["of-file", "east", "-", "registry"],
    [""],
  ]);
  expect((await pingFrom(mesh.namespace("pod-client"), "172.16.7.0")).received).toBe(5);
});

test("another service stays closed, also to who names its endpoint", async () => {
  const daemon = mesh.start("prober");
  const { err } = await daemon.waitFor("request failed", 20_000);
  expect(JSON.stringify(err)).toContain("hidden@west");
  await daemon.stop();
  expect(devicesIn(mesh.namespace("pod-hidden"))).toEqual([]);
});

test("withdrawing an export ends its wires, and closes the service", async () => {
  const before = devicesIn(mesh.namespace("pod-gateway"));
  expect(before).toHaveLength(1);
  const heard = fresh(mesh.daemon("proxy-west"))("closing connection");
  const withdrawn = fresh(mesh.daemon("proxy-west"))("no longer exported").then(() => performance.now());
  const said = await inWest("unexport", "gateway", "--from", "east");
  expect(said).toMatchObject({ code: 0, stdout: "domain east may not use gateway any more\n" });
  const withdrawnMs = await withdrawn;
  expect(await heard).toMatchObject({ why: "no longer exported to domain east" });
  await vi.waitFor(() => expect(devicesIn(mesh.namespace("pod-gateway"))).toEqual([]), PATIENCE);
  // The wire's end follows from the news at once, not from a lease or a look at intervals; the bench times it.
  expect(performance.now() - withdrawnMs).toBeLessThan(WITHDRAWN_WITHIN_MS);
  expect((await servicesSeen()).map(({ name }) => name)).toEqual(["of-file"]);
  expect(await inWest("unexport", "gateway")).toMatchObject({ code: 4 });
  const ofFile = await inWest("unexport", "of-file");
  expect(ofFile).toMatchObject({ code: 1, stderr: expect.stringContaining("may still use of-file") });
  await mesh.daemon("client").stop();
});

test("wrong words are told, and a stranger changes nothing", async () => {
  expect(await inWest("export", "gateway")).toMatchObject({ code: 2 });
  expect((await inWest("export", "gate way", "--to", "east")).stderr).toContain(
    "is no name of a network service",
  );
  expect((await inWest("export", "gateway", "--to", "a@b")).stderr).toContain("is no name of a domain");
  expect(await inWest("export", "--list", "--proxy", "unix:///run/nowhere.sock")).toMatchObject({ code: 1 });
  expect(await inWest("export", "gateway", "--to", "east", "-o", "json")).toMatchObject({ code: 2 });
  const elsewhere = await inWest("export", "--list", "--proxy", "tcp://192.0.2.1:5004");
  expect(elsewhere).toMatchObject({ code: 1, stderr: expect.stringContaining("the proxy's admin socket") });
  const early = await inWest("export", "gateway", "--to", "north");
  expect(early).toMatchObject({ code: 0, stderr: expect.stringContaining("north is not linked") });
  expect(await inWest("unexport", "gateway", "--from", "north")).toMatchObject({ code: 0, stderr: "" });
});

test("a domain that does not answer is listed as such", async () => {
  await mesh.cut();
  const [silent, ...others] = await servicesSeen();
  expect(others).toEqual([]);
  expect(silent).toMatchObject({ name: "", domain: "west", fault: expect.stringMatching(/./) });
  await mesh.mend();
  await vi.waitFor(
    async () => expect((await servicesSeen()).map(({ name }) => name)).toEqual(["of-file"]),
    PATIENCE,
  );
  if (linked !== undefined) await expectNothingLeft(linked);
});
