/** `nsm get` and `nsm describe` against a running mesh: what operators see, and what nobody else does. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import { MonitorConnection } from "../../api/gen/connection_pb.js";
import { Wires } from "../../api/gen/admin_pb.js";
import { TRUST_DOMAIN } from "../../cli/demo/topology.ts";
import { gidOfWorkload } from "../support/mesh-topology.ts";
import type { MeshOptions } from "../support/mesh-topology.ts";
import { eventually as within } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { segmentsOf, wishFor } from "../support/wishes.ts";
import { pingFrom } from "../support/wires.ts";
import type { Workload } from "../support/workload.ts";

const NSM = join(dirname(dirname(import.meta.dirname)), "bin/nsm.js");
const options: MeshOptions = {
  endpoints: [
    { name: "near", service: "near", prefixes: "172.16.1.0/24" },
    { name: "far", service: "far", prefixes: "172.16.2.0/24", payload: "ETHERNET", node: "node2" },
  ],
  clients: [{ name: "client", services: "kernel://near/nsm-1,kernel://far/nsm-2" }],
  workloads: ["operator", "tenant", "stranger"],
  pods: ["pod-tenant", "pod-stranger"],
  env: { NSM_OPERATOR_IDS: "/workload/operator" },
};

let tenant: Workload;
let stranger: Workload;
const mesh = useMesh(options);
beforeAll(async () => {
  tenant = await mesh.workload("tenant", "pod-tenant");
  stranger = await mesh.workload("stranger", "pod-stranger");
});

/** `nsm …` as a process of a workload's group. */
class Nsm {
  readonly #child: ChildProcess;
  stdout = "";
  stderr = "";

  constructor(who: "operator" | "tenant" | "stranger" | "nobody", args: readonly string[], env = {}) {
    const gid = who === "nobody" ? 64999 : gidOfWorkload(options, who);
    this.#child = spawn(
      "nsenter",
      [
        `--net=/run/netns/${mesh.namespace("node1").name}`,
        "--",
        "setpriv",
        `--regid=${gid}`,
        "--clear-groups",
        "--",
        process.execPath,
        NSM,
        ...args,
      ],
      {
        env: {
          PATH: process.env["PATH"],
          SPIFFE_ENDPOINT_SOCKET: `unix://${mesh.folder}/identity.sock`,
          NSM_CONNECT_TO: mesh.managerUrl(),
          ...env,
        },
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    this.#child.stdout?.on("data", (data: Buffer) => (this.stdout += data.toString()));
    this.#child.stderr?.on("data", (data: Buffer) => (this.stderr += data.toString()));
    onTestFinished(() => void this.#child.kill("SIGKILL"));
  }

  async ended(): Promise<number | string | null> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, "close");
    return this.#child.exitCode ?? this.#child.signalCode;
  }

  interrupt(): void {
    this.#child.kill("SIGINT");
  }

  stopReading(): void {
    this.#child.stdout?.destroy();
  }
}

/** Processes start slowly on a busy machine. */
const eventually = (what: string, condition: () => boolean) => within(what, condition, 30_000);

async function output(nsm: Nsm): Promise<string> {
  expect(await nsm.ended(), nsm.stderr).toBe(0);
  return nsm.stdout;
}

const Row = z.record(z.string(), z.unknown());
const wiresAs = async (who: "operator" | "tenant" | "stranger", ...args: string[]) =>
  z
    .object({ wires: z.array(Row) })
    .parse(JSON.parse(await output(new Nsm(who, ["get", "wires", "-o", "json", ...args])))).wires;

describe("nsm get", () => {
  test("lists the wires of everybody to an operator, by any manager, with the tunnel between the nodes", async () => {
    const wires = await wiresAs("operator");
    expect(wires).toMatchObject([
      {
        client: "client",
        service: "far",
        endpoint: "far",
        state: "UP",
        mechanism: "VXLAN",
        interface: "nsm-2",
        addresses: [expect.stringContaining("172.16.2.")],
        payload: "ETHERNET",
        path: ["client", "nsmgr-node1", "forwarder-node1", "nsmgr-node2", "forwarder-node2", "far"],
      },
      { client: "client", service: "near", mechanism: "KERNEL", interface: "nsm-1", mtu: 9000 },
    ]);
    const there = await wiresAs("operator", "--manager", mesh.managerUrl("node2"));
    expect(there).toMatchObject([{ id: wires[0]?.["id"], service: "far", interface: "" }]);
    const everywhere = await wiresAs("operator", "--all-nodes", "--manager", mesh.managerUrl("node2"));
    expect(everywhere).toMatchObject(wires.map(({ id, interface: name }) => ({ id, interface: name })));
  });

  test("tables have one line a wire in a pipe, names filter, and a name that nobody bears is exit code 4", async () => {
    const table = await output(new Nsm("operator", ["get", "wires", "nea*"]));
    const [title = "", line = "", ...more] = table.trimEnd().split("\n");
    expect(title).toMatch(/^WIRE +CLIENT +SERVICE +ENDPOINT +STATE +MECHANISM +ADDRESSES$/);
    expect(line).toMatch(/^[0-9a-f]{8} +client +near +near +UP +KERNEL +172\.16\.1\.\d+ → 172\.16\.1\.\d+$/);
    expect(more).toEqual([]);
    const wide = await output(new Nsm("operator", ["get", "wires", "far", "-o", "wide"]));
    expect(wide).toContain("client → nsmgr-node1 → forwarder-node1 → nsmgr-node2 → forwarder-node2 → far");
    const none = new Nsm("operator", ["get", "wires", "nobody"]);
    expect(await none.ended()).toBe(4);
    expect(none.stderr).toContain("no wires named nobody");
  });

  test("lists services, endpoints and clients", async () => {
    const services = await output(new Nsm("operator", ["get", "services", "-o", "yaml"]));
    expect(services).toMatch(/services:\n.*name: far\n +payload: ETHERNET\n +endpoints:\n +- far\n/s);
    const endpoints = await output(new Nsm("stranger", ["get", "endpoints"]));
    expect(endpoints).toMatch(/^far +far +node2 +tcp:\/\/192\.0\.2\.2:5001$/m);
    expect(endpoints).toMatch(/^forwarder-node1 +forwarder +node1 +unix:/m);
    expect(await output(new Nsm("operator", ["get", "clients"]))).toMatch(
      /^client +node1 +2\/2 up +far,near$/m,
    );
  });

  test("without an identity it is refused, with the remedy; a process that is not registered, too", async () => {
    const without = new Nsm("operator", ["get", "wires"], {
      SPIFFE_ENDPOINT_SOCKET: "unix:///nonexistent.sock",
    });
    expect(await without.ended()).toBe(1);
    expect(without.stderr).toMatch(/without a SPIFFE identity.*SPIFFE_ENDPOINT_SOCKET/);
    const unknown = new Nsm("nobody", ["get", "wires"]);
    expect(await unknown.ended()).toBe(1);
    expect(unknown.stderr).toMatch(/without a SPIFFE identity.*registrations\.yaml/);
    expect(without.stdout + unknown.stdout).toBe("");
    const nowhere = new Nsm("operator", ["get", "wires", "--manager", "unix:///nonexistent/nsmgr.sock"]);
    expect(await nowhere.ended()).toBe(1);
    expect(nowhere.stderr).toContain("no manager");
  });

  test("with --watch it tells of wires that come, change and go, until it is interrupted", async () => {
    const watch = new Nsm("operator", ["get", "wires", "--watch", "-o", "json"]);
    await eventually("what is there", () => watch.stdout.split("\n").length === 3);
    const table = new Nsm("operator", ["get", "wires", "-w"]);
    await eventually("what is there", () => table.stdout.includes("PRESENT"));
    const wire = await tenant.request(wishFor(tenant, { service: "near" }));
    await eventually("the new wire", () => watch.stdout.includes('"event":"new"'));
    await tenant.close(wire);
    await eventually("its end", () => watch.stdout.includes('"event":"gone"'));
    const lines = watch.stdout
      .trimEnd()
      .split("\n")
      .map((line) => Row.parse(JSON.parse(line)));
    expect(lines.slice(2)).toMatchObject([
      { event: "new", wire: { id: segmentsOf(wire)[1]?.id, service: "near" } },
      { event: "gone", wire: { id: segmentsOf(wire)[1]?.id } },
    ]);
    await eventually("the same as a table", () => table.stdout.includes("GONE"));
    watch.interrupt();
    expect(await watch.ended()).toBe(0);
    table.stopReading();
    const last = await tenant.request(wishFor(tenant, { service: "near" }));
    expect(await table.ended(), table.stderr).toBe(0);
    await tenant.close(last);
  });
});

describe("nsm describe wire", () => {
  test("tells an operator path, lease, addresses, counters of both nodes and events, and nobody's token", async () => {
    const wire = await mesh.established("client", "nsm-2");
    expect(wire.service).toBe("far");
    const text = await output(new Nsm("operator", ["describe", "wire", "client-1"]));
    expect(text).toMatch(/^Mechanism +VXLAN$/m);
    expect(text).toMatch(/^Interface +nsm-2$/m);
    expect(text).toMatch(/^ +nsmgr-node1 +(\d+m\d*s?|\d+s) left .* [-0-9a-f]{36}$/m);
    expect(text).toMatch(/^ +forwarder-node2 .* VXLAN\//m);
    expect(text).toMatch(/ (made|mended|healed) +endpoint far/);
    expect(text).not.toMatch(/eyJ/); // how every token begins
  });

  test("as JSON the counters grow with the packets, and those of the other node agree", async () => {
    const { peerAddresses } = await mesh.established("client", "nsm-2");
    const target = peerAddresses[0]?.split("/")[0] ?? "";
    const [short = ""] = (await wiresAs("operator", "far")).map(({ id }) => String(id).slice(0, 8));
    const Described = z.object({
      faults: z.array(z.string()),
      counters: z.array(
        z.object({
          forwarder: z.string(),
          side: z.string(),
          interface: z.string(),
          sent: z.object({ bytes: z.number(), packets: z.number() }),
        }),
      ),
    });
    const read = async () => {
      const described = Described.parse(
        JSON.parse(await output(new Nsm("operator", ["describe", "wire", short, "-o", "json"]))),
      );
      expect(described.faults).toEqual([]);
      return new Map(described.counters.map(({ forwarder, sent }) => [forwarder, sent]));
    };
    const before = await read();
    expect([...before.keys()]).toEqual(["forwarder-node1", "forwarder-node2"]);
    expect(await pingFrom(mesh.namespace("pod-client"), target)).toMatchObject({ received: 5 });
    const after = await read();
    for (const node of ["forwarder-node1", "forwarder-node2"])
      expect(after.get(node)?.packets).toBeGreaterThanOrEqual((before.get(node)?.packets ?? 0) + 5);
  });

  test("a wire that is closed is still explained to an operator who knows its id", async () => {
    const wire = await tenant.request(wishFor(tenant, { service: "near" }));
    await tenant.close(wire);
    const id = segmentsOf(wire)[1]?.id ?? "";
    const text = await output(new Nsm("operator", ["describe", "wire", id]));
    expect(text).toMatch(/^State +closed$/m);
    expect(text).toContain(`by ${tenant.spiffeId}`);
  });
});

describe("who is no operator", () => {
  test("sees own wires alone: in lists, watches, and when it names those of others", async () => {
    const own = await tenant.request(wishFor(tenant, { service: "near" }));
    const id = segmentsOf(own)[1]?.id ?? "";
    expect(await wiresAs("tenant")).toMatchObject([{ id }]);
    const text = await output(new Nsm("tenant", ["describe", "wire", id]));
    expect(text).toMatch(/^Service +near$/m);
    expect(text).toMatch(/ made +endpoint near/);

    const nothing = new Nsm("stranger", ["get", "wires"]);
    expect(await nothing.ended()).toBe(0);
    expect(nothing.stdout).toBe("");
    expect(nothing.stderr).toContain(`that spiffe://${TRUST_DOMAIN}/workload/stranger may see`);
    for (const asked of [
      id,
      id.slice(0, 8),
      "client-0",
      segmentsOf(own)[2]?.id ?? "",
      segmentsOf(own)[3]?.id ?? "",
    ]) {
      const foreign = new Nsm("stranger", ["describe", "wire", asked]);
      expect(await foreign.ended()).toBe(4);
      expect(foreign.stdout).toBe("");
      expect(foreign.stderr).toContain("NSM_OPERATOR_IDS");
    }
    await tenant.close(own);
  });

  test("is not told by the call itself either, nor by a forwarder, whatever id it names", async () => {
    const own = await tenant.request(wishFor(tenant, { service: "near" }));
    for (const { id } of segmentsOf(own))
      await expect(stranger.call(Wires.method.describeWire, { id })).rejects.toMatchObject({
        code: "NOT_FOUND",
      });
    const url = `unix://${mesh.folder}/node1/forwarder.sock`;
    await expect(stranger.call(Wires.method.describeWire, { id: "x" }, { url })).rejects.toMatchObject({
      code: "UNAVAILABLE",
    });
    const stream = await stranger.stream(MonitorConnection.method.monitorConnections, {});
    await stream.waitFor(() => true);
    expect(stream.messages.map(({ connections }) => connections)).toEqual([{}]);
    await stream.stop();
    await tenant.close(own);
  });
});

test("a watch survives its manager's restart and says so", async () => {
  const watch = new Nsm("operator", ["get", "wires", "--watch", "-o", "json"]);
  await eventually("what is there", () => watch.stdout.split("\n").length === 3);
  await mesh.restart("nsmgr-node1");
  await mesh.daemon("nsmgr-node1").waitFor("manager serves", 30_000);
  // The node's forwarder registers again in a moment.
  const wire = await eventuallyAnswered(() => tenant.request(wishFor(tenant, { service: "near" })));
  const id = segmentsOf(wire)[1]?.id ?? "";
  await eventually("a new wire", () => watch.stdout.includes(`"event":"new","wire":{"id":"${id}"`));
  await tenant.close(wire);
  expect(watch.stderr).toContain("trying again");
  watch.interrupt();
  expect(await watch.ended()).toBe(0);
});

async function eventuallyAnswered<T>(ask: () => Promise<T>): Promise<T> {
  let answer: T | undefined;
  await within(
    "an answer",
    async () => {
      answer = await ask().catch(() => undefined);
      return answer !== undefined;
    },
    30_000,
  );
  if (answer === undefined) throw new Error("no answer");
  return answer;
}
