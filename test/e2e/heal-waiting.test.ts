/** Clients whose service nobody serves: they have their wires as soon as somebody registers, however long they have waited. */
import { expect, test } from "vitest";
import { fresh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import type { LogLine } from "../support/process.ts";
import { useMesh } from "../support/use-mesh.ts";
import { hostOf, pingFrom, wireOf } from "../support/wires.ts";

/** After so many tries the next pause is five seconds and more. */
const TRIES = 9;
/** From the registration to the wire; a client that had to find out by itself would take three times as long on average. */
const SERVED_WITHIN_MS = 2000;

const mesh = useMesh({
  endpoints: [
    { name: "one", service: "echo", prefixes: "172.16.1.0/24" },
    { name: "two", node: "node2", service: "echo", prefixes: "172.16.2.0/24" },
    { name: "three", node: "node2", service: "echo", prefixes: "172.16.3.0/24", started: false },
  ],
  clients: [
    { name: "client", services: "kernel://echo/nsm-1" },
    { name: "newcomer", services: "kernel://echo/nsm-1", started: false },
  ],
});

const timeOf = (line: LogLine) => Number(line["time"]);
const failures = (name: string) =>
  mesh.daemon(name).log.filter(({ msg }) => msg === "request failed, trying again").length;

test("all endpoints of a service dead, one registers later: those who wait are served at once", async () => {
  const said = fresh(mesh.daemon("client"));
  await Promise.all([mesh.daemon("one").kill(), mesh.daemon("two").kill()]);
  await said("wire is down, healing");
  mesh.start("newcomer");
  const before = failures("client");
  for (const [name, from] of [
    ["client", before],
    ["newcomer", 0],
  ] as const)
    await eventually(`${name} waits`, () => failures(name) >= from + TRIES, 60_000);
  mesh.start("three");
  const registered = await mesh.daemon("three").waitFor("endpoint three registered");
  const healed = await said(({ msg, nse }) => msg === "wire established" && nse === "three");
  const served = await mesh.daemon("newcomer").waitFor("wire established");
  const gaps = [healed, served].map((line) => timeOf(line) - timeOf(registered));
  for (const gap of gaps) expect(gap).toBeLessThan(SERVED_WITHIN_MS);
  expect(mesh.daemon("nsmgr-node1").log.map(({ msg }) => msg)).toContain(
    "somebody has registered who would serve: its client is told",
  );
  for (const [name, line] of [
    ["client", healed],
    ["newcomer", served],
  ] as const) {
    const target = hostOf(wireOf(line).peerAddresses);
    expect(await pingFrom(mesh.namespace(`pod-${name}`), target)).toMatchObject({ received: 5 });
  }
});
