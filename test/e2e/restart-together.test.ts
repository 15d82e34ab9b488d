/**
 * A client that is killed together with the manager of its node: nobody remembers its wires but the forwarder; and with all daemons
 * of its node: nobody does but the kernel.
 */
import { beforeAll, expect, test } from "vitest";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { deviceIn, devicesIn, hostOf, pingFrom } from "../support/wires.ts";

const LIFE_MS = 20_000;
const mesh = useMesh({
  tokenLifetime: `${LIFE_MS}ms`,
  endpoints: [
    { name: "here", service: "here", prefixes: "172.16.1.0/24" },
    { name: "there", node: "node2", service: "there", prefixes: "172.16.2.0/24" },
  ],
  clients: [{ name: "client", services: "kernel://here/nsm-1,kernel://there/nsm-2", started: false }],
});
beforeAll(async () => {
  mesh.start("client");
  await mesh.established("client", "nsm-1");
  await mesh.established("client", "nsm-2");
});

test("a client that is killed with its manager has its wires back, by the same names and addresses", async () => {
  const pod = mesh.namespace("pod-client");
  const was = ["nsm-1", "nsm-2"].map((name) => deviceIn(pod, name));
  await Promise.all([mesh.daemon("client").kill(), mesh.daemon("nsmgr-node1").kill()]);
  mesh.start("nsmgr-node1");
  await mesh.daemon("nsmgr-node1").waitFor("manager serves");
  mesh.start("client");
  await mesh.established("client", "nsm-1");
  await mesh.established("client", "nsm-2");
  const is = ["nsm-1", "nsm-2"].map((name) => deviceIn(pod, name));
  expect(is.map(({ addresses }) => addresses)).toEqual(was.map(({ addresses }) => addresses));
  expect(devicesIn(pod)).toHaveLength(2);
  for (const target of ["172.16.1.0", "172.16.2.0"])
    expect(await pingFrom(pod, target)).toMatchObject({ received: 5 });
  for (const place of ["pod-here", "pod-there"])
    await eventually(`one device in ${place}`, () => devicesIn(mesh.namespace(place)).length === 1);
});

test("a client that is killed with all daemons of its node has its interfaces back at once", async () => {
  const pod = mesh.namespace("pod-client");
  const daemons = ["nsmgr-node1", "forwarder-node1"];
  await Promise.all(["client", ...daemons].map((name) => mesh.daemon(name).kill()));
  for (const name of daemons) mesh.start(name);
  await mesh.daemon("nsmgr-node1").waitFor("manager serves");
  const startMs = performance.now();
  mesh.start("client");
  // An endpoint that has not heard of the end of a wire gives the next one other addresses.
  const targets = await Promise.all(
    ["nsm-1", "nsm-2"].map(async (name) => hostOf((await mesh.established("client", name)).peerAddresses)),
  );
  // What nobody has claimed is removed when the longest token is over, and half a minute.
  expect(performance.now() - startMs).toBeLessThan(LIFE_MS + 20_000);
  expect(devicesIn(pod)).toHaveLength(2);
  for (const target of targets)
    await eventually(`${target} answers`, async () => (await pingFrom(pod, target)).received === 5);
  // The other node hears of the end of a wire by nobody.
  for (const place of ["pod-here", "pod-there"])
    await eventually(
      `one device in ${place}`,
      () => devicesIn(mesh.namespace(place)).length === 1,
      LIFE_MS + 20_000,
    );
});

test("and leaves nothing behind when it ends", async () => {
  expect(await mesh.daemon("client").stop()).toBe(0);
  await mesh.expectAsStarted();
});
