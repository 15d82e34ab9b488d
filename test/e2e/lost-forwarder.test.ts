/** A forwarder that ends, beside another one: started again it keeps its wires; ended for good it loses them to the other. */
import { expect, test } from "vitest";
import { fresh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { deviceIn, devicesIn, pingFrom, startTraffic } from "../support/wires.ts";

/** Longer than a forwarder takes to start on a busy machine. */
const GRACE_MS = 15_000;
/** For the wire to be asked for and made, after the grace. */
const MOVED_WITHIN_MS = 10_000;

const mesh = useMesh({
  nodes: 1,
  spareForwarder: true,
  endpoints: [{ name: "near", service: "near", prefixes: "172.16.1.0/24" }],
  clients: [{ name: "client", services: "kernel://near/nsm-1" }],
  env: (part) => (part.startsWith("nsmgr") ? { NSM_FORWARDER_GRACE: `${GRACE_MS}ms` } : {}),
});

const pod = (name: string) => mesh.namespace(`pod-${name}`);
const device = () => deviceIn(pod("client"), "nsm-1");
const forwarder = async () => (await mesh.established("client", "nsm-1")).path[2] ?? "";

test("a forwarder that is started again keeps its wires: no packet is lost and the device is the same", async () => {
  const used = await forwarder();
  const { ifindex } = device();
  const traffic = startTraffic({
    from: pod("client"),
    source: "172.16.1.1",
    to: pod("near"),
    target: "172.16.1.0",
  });
  await mesh.restart(used);
  await mesh.daemon(used).waitFor("wire adopted");
  expect(await traffic.stop()).toMatchObject({ lost: 0 });
  expect(device().ifindex).toBe(ifindex);
});

test("a forwarder that does not come back loses its wires to the other one, after the grace", async () => {
  const used = await forwarder();
  const other = used === "forwarder-spare" ? "forwarder-node1" : "forwarder-spare";
  const { ifindex } = device();
  const said = fresh(mesh.daemon("client"));
  await mesh.daemon(used).kill();
  expect(await pingFrom(pod("client"), "172.16.1.0")).toMatchObject({ received: 5 });
  await mesh.daemon(other).waitFor("wire made", GRACE_MS + MOVED_WITHIN_MS);
  await eventually("another device", () => device().ifindex !== ifindex);
  const { nse, path, peerAddresses } = await said(({ msg }) => msg === "wire established");
  expect(nse).toBe("near");
  expect(path).toContain(other);
  const target = String(peerAddresses).split("/")[0] ?? "";
  expect(await pingFrom(pod("client"), target)).toMatchObject({ received: 5 });
  expect(devicesIn(pod("client"))).toHaveLength(1);
  expect(devicesIn(pod("near"))).toHaveLength(1);
});
