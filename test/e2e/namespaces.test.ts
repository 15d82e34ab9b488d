/** In whose namespace a wire ends: never in one that somebody merely names, and not behind a socket that is not what it seems. */
import { symlinkSync, rmSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { NetworkServiceEndpointRegistry } from "../../api/gen/registry_pb.js";
import { EMPTY_PATH, PATH_KEY, writeRegistrationPath } from "../../sdk/registry-path.ts";
import { holdInventory } from "../support/hold-inventory.ts";
import { startMesh } from "../support/mesh.ts";
import type { Mesh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import { addressOf, wishFor } from "../support/wishes.ts";
import { devicesIn, pingFrom } from "../support/wires.ts";
import type { Workload } from "../support/workload.ts";

const BEGUN = { metadata: { [PATH_KEY]: writeRegistrationPath(EMPTY_PATH) } };
const { register, unregister } = NetworkServiceEndpointRegistry.method;

let mesh: Mesh;
let client: Workload;
let other: Workload;
holdInventory(() => mesh);
beforeAll(async () => {
  mesh = await startMesh({
    nodes: 1,
    endpoints: [{ name: "near", service: "near", prefixes: "172.16.1.0/24" }],
    workloads: ["client", "other", "guest"],
    pods: ["pod-a", "pod-b"],
  });
  client = await mesh.workload("client", "pod-a");
  other = await mesh.workload("other", "pod-b");
});

describe("a client", () => {
  const asking = (inodeURL: string) => {
    const request = wishFor(client, { service: "near" });
    for (const { parameters } of request.mechanismPreferences) parameters["inodeURL"] = inodeURL;
    return request;
  };

  test.for(["pod-b", "node1"])("that names the namespace of %s gets no wire there", async (place) => {
    const url = client.netnsUrl.replace(/\d+$/, String(mesh.namespace(place).inode));
    await expect(client.request(asking(url))).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
      reason: "netns-mismatch",
      message: expect.stringContaining(url),
    });
  });

  test("that names a namespace by a path, or by nothing, gets its wire in its own", async () => {
    for (const url of ["file:///proc/1/ns/net", "file:///run/netns/nsm-x", ""]) {
      const wire = await client.request(asking(url));
      expect(devicesIn(mesh.namespace("pod-a")), url).toMatchObject([{ name: "nsm-1" }]);
      expect(devicesIn(mesh.namespace("node1")), url).toEqual([]);
      expect(await pingFrom(mesh.namespace("pod-a"), addressOf(wire, "dst"))).toMatchObject({ received: 5 });
      await client.close(wire);
    }
  });

  test("that writes a process id of its own gets its wire in its own namespace all the same", async () => {
    const request = asking(client.netnsUrl);
    for (const { parameters } of request.mechanismPreferences) parameters["peerPID"] = String(other.pid);
    const wire = await client.request(request);
    expect(devicesIn(mesh.namespace("pod-a"))).toMatchObject([{ name: "nsm-1" }]);
    expect(devicesIn(mesh.namespace("pod-b"))).toEqual([]);
    await client.close(wire);
  });

  test("that wishes its loopback network to be routed gets a wire that does not", async () => {
    const request = asking(client.netnsUrl);
    for (const { parameters } of request.mechanismPreferences) parameters["routeLocalNet"] = "true";
    const wire = await client.request(request);
    const pod = mesh.namespace("pod-a");
    for (const device of ["nsm-1", "all"])
      expect(pod.exec("sysctl", "-n", `net.ipv4.conf.${device}.route_localnet`)).toBe("0\n");
    await client.close(wire);
  });

  test("cannot take its wire along to another namespace", async () => {
    const wire = await client.request(asking(client.netnsUrl));
    await using moved = await mesh.workload("client", "pod-b");
    const devices = devicesIn(mesh.namespace("pod-a"));
    const again = {
      connection: wire,
      mechanismPreferences: wishFor(moved, { service: "near" }).mechanismPreferences,
    };
    await expect(moved.request(again)).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
    expect(devicesIn(mesh.namespace("pod-a"))).toEqual(devices);
    expect(devicesIn(mesh.namespace("pod-b"))).toEqual([]);
    await client.close(wire);
  });
});

describe("an endpoint", () => {
  /** Registers `other` as an endpoint behind a socket, and asks for a wire to it. */
  const wireTo = async (path: string) => {
    const entry = { name: "odd", networkServiceNames: ["near"], url: `unix://${path}` };
    await other.call(register, entry, BEGUN);
    const request = wishFor(client, { service: "near" });
    if (request.connection !== undefined) request.connection.networkServiceEndpointName = "odd";
    try {
      await client.close(await client.request(request));
    } finally {
      await other.call(unregister, entry, BEGUN);
    }
  };

  test("behind a symbolic link is refused", async () => {
    const link = `${mesh.folder}/pods/link.sock`;
    symlinkSync(`${mesh.folder}/pods/near.sock`, link);
    try {
      await expect(wireTo(link)).rejects.toMatchObject({
        code: "PERMISSION_DENIED",
        message: expect.stringContaining("link.sock"),
      });
    } finally {
      rmSync(link);
    }
  });

  test("whose socket belongs to a process of another namespace is refused", async () => {
    await expect(wireTo(`${mesh.folder}/pods/near.sock`)).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
      message: expect.stringContaining("another network namespace"),
    });
  });

  test("whose socket is a file, or is not there, is refused", async () => {
    await expect(wireTo(`${mesh.folder}/registrations.yaml`)).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
    });
    await expect(wireTo(`${mesh.folder}/pods/nobody.sock`)).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  test("at a url that is none is refused when it registers", async () => {
    for (const url of [
      "",
      "http://198.51.100.1",
      "unix://relative",
      "unix:///a\0b",
      "file:///etc/passwd",
      "inode://4/5",
    ])
      await expect(
        other.call(register, { name: "odd", networkServiceNames: ["near"], url }, BEGUN),
        url,
      ).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  test("leaves the registry when its process dies", async () => {
    const guest = await mesh.workload("guest", "pod-b");
    const entry = { name: "guest", networkServiceNames: ["near"], url: "unix:///run/guest.sock" };
    await guest.call(register, entry, BEGUN);
    expect(await client.findEndpoints({ name: "guest" })).toHaveLength(1);
    await guest.kill();
    await eventually(
      "it is not found any more",
      async () => (await client.findEndpoints({ name: "guest" })).length === 0,
    );
  });
});
