/** A node that vanishes: nothing is refused, nothing breaks, nobody answers. Its clients elsewhere go on with an endpoint that lives. */
import { beforeAll, expect, test } from "vitest";
import { fresh } from "../support/mesh.ts";
import { useMesh } from "../support/use-mesh.ts";
import { pingFrom } from "../support/wires.ts";

/** Detection, half a second for the node, and the new wire; one candidate after the other, four seconds each, would take twelve. */
const HEALED_WITHIN_MS = 3500;

const lost = ["a", "b", "c"].map((name, i) => ({
  name,
  node: "node2" as const,
  service: "echo",
  prefixes: `172.16.${i + 1}.0/24`,
}));

const mesh = useMesh({
  endpoints: [
    ...lost,
    // The last to be tried, whosever turn it is; a client that came later could think the other node slow and begin here.
    { name: "spare", service: "echo", prefixes: "172.16.9.0/24", started: false },
  ],
  clients: [{ name: "client", services: "kernel://echo/nsm-1", started: false }],
  env: (part) => (part === "spare" ? { NSM_LABELS: "nsm.io/tier:1" } : {}),
});
beforeAll(async () => {
  mesh.start("client");
  await mesh.established("client", "nsm-1");
  await mesh.start("spare").waitFor("endpoint spare registered");
});

const nft = (command: string) => mesh.namespace("node2").exec("nft", command);

test("three endpoints on a node that is lost cost half a second together, and the next wire nothing", async () => {
  const { peerAddresses } = await mesh.established("client", "nsm-1");
  expect(await pingFrom(mesh.namespace("pod-client"), peerAddresses[0]?.split("/")[0] ?? "")).toMatchObject({
    received: 5,
  });
  const said = fresh(mesh.daemon("client"));
  const failures = () =>
    mesh.daemon("forwarder-node1").log.filter(({ msg }) => msg === "endpoint failed").length;
  const before = failures();
  nft("add table inet cut");
  try {
    for (const hook of ["input", "output"])
      nft(`add chain inet cut ${hook} { type filter hook ${hook} priority -300; policy drop; }`);
    const sinceMs = Date.now();
    const healed = await said(({ msg, nse }) => msg === "wire established" && nse === "spare");
    expect(Number(healed["time"]) - sinceMs).toBeLessThan(HEALED_WITHIN_MS);
    expect(await pingFrom(mesh.namespace("pod-client"), "172.16.9.0")).toMatchObject({ received: 5 });
    expect(failures() - before).toBe(1);
  } finally {
    nft("delete table inet cut");
  }
});
