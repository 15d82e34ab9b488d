/**
 * Two clusters whose identities come from SPIRE (here: what its agents are to a mesh), and are federated by its operators: linked when
 * the bundles are there, refused with what to do when they are not, and followed when SPIRE changes them.
 */
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { authorityIn } from "../support/authority-client.ts";
import { LINKING, linksOf, runNsmIn, tokenOf } from "../support/link-commands.ts";
import { shortOrLong } from "../support/long.ts";
import { fresh } from "../support/mesh.ts";
import { useMesh } from "../support/use-mesh.ts";
import { refreshOf, wishFor } from "../support/wishes.ts";
import type { Workload } from "../support/workload.ts";

const CLUSTERS = ["east", "west"] as const;
type Cluster = (typeof CLUSTERS)[number];
const otherOf = (cluster: Cluster): Cluster => (cluster === "east" ? "west" : "east");
const PATIENCE = { timeout: 60_000, interval: 200 };

const mesh = useMesh({
  ...LINKING,
  nodes: 1,
  authority: "spire-stand-in.ts",
  workloads: [...LINKING.workloads, "worker"],
  pods: ["pod-worker"],
  endpoints: [{ name: "far", node: "node3", service: "far", prefixes: "172.16.2.0/24" }],
  env: (part) => (part.startsWith("identity-") ? { NSM_IDENTITY_REFRESH_HINT: "1s" } : LINKING.env(part)),
});

const stateOf = (cluster: Cluster) => join(mesh.folder, `identity-${cluster}`);
const server = (cluster: Cluster) => authorityIn(stateOf(cluster));

/** As SPIRE servers that ask one another do: each cluster has what the other one publishes now, or nothing. */
async function federate(clusters: readonly Cluster[] = CLUSTERS): Promise<void> {
  for (const cluster of CLUSTERS) {
    const other = otherOf(cluster);
    const { document } = await server(other).list();
    const path = join(stateOf(cluster), "operator.json");
    const bundles = clusters.includes(cluster) ? { [`${other}.nsm`]: Buffer.from(document).toString() } : {};
    writeFileSync(`${path}.draft`, JSON.stringify(bundles), { mode: 0o600 });
    renameSync(`${path}.draft`, path);
  }
}

const listed = async () => [await linksOf(mesh, "east"), await linksOf(mesh, "west")];
const expectState = (state: string) =>
  vi.waitFor(async () => expect(await listed()).toMatchObject([[{ state }], [{ state }]]), PATIENCE);
const wireOf = (worker: Workload) =>
  vi.waitFor(() => worker.request(wishFor(worker, { service: "far@west" })), PATIENCE);

test("before SPIRE federates the trust domains they are not linked, the message says who can do it, and nothing is left", async () => {
  const { code, stdout, stderr } = await runNsmIn(mesh, "west", "link", "join", await tokenOf(mesh, "east"));
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr).toMatch(/trust domain \w+\.nsm: federate it there \(SPIRE: spire-server federation create/);
  await vi.waitFor(async () => expect(await listed()).toEqual([[], []]), PATIENCE);
});

test("where each has the other's bundle they are linked, and wires are made", async () => {
  await federate();
  await vi.waitFor(async () => {
    const { code, stdout, stderr } = await runNsmIn(
      mesh,
      "west",
      "link",
      "join",
      await tokenOf(mesh, "east"),
    );
    expect({ code, stdout }, stderr).toEqual({ code: 0, stdout: "east\n" });
  }, PATIENCE);
  await expectState("up");
  expect(await runNsmIn(mesh, "west", "export", "far", "--to", "east")).toMatchObject({ code: 0 });
  await using worker = await mesh.workload("worker", "pod-worker");
  await worker.close(await wireOf(worker));
});

test("a CA that SPIRE replaces reaches the sessions: what the old one signed is refused, link and wires go on", async () => {
  await using worker = await mesh.workload("worker", "pod-worker");
  const wire = await wireOf(worker);
  const [old] = (await server("west").list()).keys;
  await server("west").rotate(false);
  await federate();
  await vi.waitFor(async () => {
    const signing = (await server("west").list()).keys.find(({ state }) => state === "signing");
    expect(signing?.id).not.toBe(old?.id);
  }, PATIENCE);
  await server("west").withdraw(old?.id ?? "");
  await federate();
  await mesh
    .daemon("proxy-east")
    .waitFor(
      ({ msg, peer }) =>
        msg.includes("not trusted any more") && String(peer).startsWith("spiffe://west.nsm/"),
      60_000,
    );
  await expectState("up");
  await vi.waitFor(() => worker.request(refreshOf(wire)), PATIENCE);
  await worker.close(wire);
});

test("when SPIRE ends the federation, sessions end within a second, the link is down, and nothing is granted any more", async () => {
  const cut = fresh(mesh.daemon("proxy-east"));
  const told = fresh(mesh.daemon("identity-east"));
  await federate([]);
  const { time: toldMs } = await told("bundle of a federated trust domain removed", 60_000);
  const { time: cutMs } = await cut(
    ({ msg, peer }) => msg.includes("not trusted any more") && peer === "spiffe://west.nsm/proxy/west",
    60_000,
  );
  expect(Number(cutMs) - Number(toldMs)).toBeLessThan(shortOrLong(3000, 1000)); // with a busy machine's share
  await expectState("down");
  await using worker = await mesh.workload("worker", "pod-worker");
  await expect(worker.request(wishFor(worker, { service: "far@west" }))).rejects.toThrow();
  await federate();
  await expectState("up");
  await worker.close(await wireOf(worker));
});
