/** What a client and an endpoint agree on beside the wire itself: addresses that keep apart, excluded prefixes, policy routes. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { State } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { useMesh } from "../support/use-mesh.ts";
import { deviceIn } from "../support/wires.ts";
import { wishFor } from "../support/wishes.ts";
import { copyOf } from "../support/workload.ts";

const folder = mkdtempSync(join(tmpdir(), "client-"));
const excluded = join(folder, "excluded.yaml");
const policies = join(folder, "policies.yaml");
const POOL = "172.16.0.96/29";
const client = { services: "kernel://one/nsm-1,kernel://two/nsm-2,kernel://three/nsm-3", started: false };

writeFileSync(excluded, "prefixes: [172.16.5.0/30]\n");
writeFileSync(policies, "- { proto: 6, dstport: 6666, routes: [{ prefix: 172.16.7.0/24 }] }\n");
afterAll(() => rmSync(folder, { recursive: true }));
const mesh = useMesh({
  nodes: 1,
  endpoints: [
    { name: "one", service: "one", prefixes: POOL },
    { name: "two", service: "two", prefixes: POOL },
    { name: "three", service: "three", prefixes: POOL },
    { name: "holes", service: "holes", prefixes: "172.16.5.0/29" },
    {
      name: "routed",
      service: "routed",
      prefixes: "172.16.6.0/29",
      env: { NSM_PBR_CONFIG_PATH: policies },
    },
  ],
  clients: [
    { name: "apart", ...client },
    {
      name: "aware",
      ...client,
      env: { NSM_AWARENESS_GROUPS: "[kernel://one/nsm-1,kernel://two/nsm-2]" },
    },
    { name: "early", services: "kernel://holes/nsm-1", started: false },
    { name: "later", services: "kernel://holes/nsm-1", started: false },
  ],
  workloads: ["walker"],
  pods: ["pod-walker"],
  env: { NSM_EXCLUDED_PREFIXES_PATH: excluded },
});

/** What the kernel has on each of the client's interfaces, once they are established. */
async function addressesOf(client: string, ...names: readonly string[]): Promise<readonly string[]> {
  await Promise.all(names.map((name) => mesh.established(client, name)));
  return names.map((name) => deviceIn(mesh.namespace(`pod-${client}`), name).addresses.join());
}

const WIRES = ["nsm-1", "nsm-2", "nsm-3"];

test("one client, three endpoints with the same pool: each wire has an address of its own", async () => {
  mesh.start("apart");
  const addresses = await addressesOf("apart", ...WIRES);
  expect(addresses).toEqual(Array(3).fill(expect.stringMatching(/^172\.16\.0\.(?:97|99|10[13])\/32$/)));
  expect(new Set(addresses).size).toBe(3);
  expect(await mesh.daemon("apart").stop()).toBe(0);
});

test("AwareNSEs: the wires of one awareness group have the same address, the third another one", async () => {
  mesh.start("aware");
  const [first, second, third] = await addressesOf("aware", ...WIRES);
  expect(second).toBe(first);
  expect(third).not.toBe(first);
  expect(await mesh.daemon("aware").stop()).toBe(0);
});

test("a manager excludes what its file says, and what it says later", async () => {
  mesh.start("early");
  expect(await addressesOf("early", "nsm-1")).toEqual(["172.16.5.5/32"]);
  writeFileSync(excluded, "prefixes: [172.16.5.0/3");
  await mesh.daemon("nsmgr-node1").waitFor("excluded prefixes cannot be used");
  writeFileSync(excluded, "prefixes: [172.16.5.4/30]\n");
  await mesh.daemon("nsmgr-node1").waitFor("excluded prefixes changed");
  mesh.start("later");
  expect(await addressesOf("later", "nsm-1")).toEqual(["172.16.5.1/32"]);
  for (const name of ["early", "later"]) expect(await mesh.daemon(name).stop()).toBe(0);
});

test("policy routes reach the client, and a change of them asks it to refresh at once", async () => {
  const walker = await mesh.workload("walker", "pod-walker");
  const policiesOf = (connection: Connection) =>
    connection.context?.ipContext?.policies.map(({ proto, dstPort, from }) => ({ proto, dstPort, from }));
  const wire = await walker.request(wishFor(walker, { service: "routed" }));
  expect(policiesOf(wire)).toEqual([{ proto: "6", dstPort: "6666", from: "" }]);

  const stream = await walker.monitor({ pathSegments: [{ id: wire.id }] });
  await stream.waitFor(() => true);
  writeFileSync(policies, "- { from: 172.16.6.200/32 }\n");
  await stream.waitFor(({ connections }) =>
    Object.values(connections).some(({ state }) => state === State.REFRESH_REQUESTED),
  );
  const refreshed = await walker.request({ connection: copyOf(wire) });
  expect(policiesOf(refreshed)).toEqual([{ proto: "", dstPort: "", from: "172.16.6.200/32" }]);
  expect(refreshed.context?.ipContext?.srcIpAddrs).toEqual(["172.16.6.1/32", "172.16.6.200/32"]);
  await stream.stop();
  await walker.close(refreshed);
});
