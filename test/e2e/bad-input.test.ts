/** Whatever a workload sends, asks for or is told by its environment: the right code, words that help, and nothing left behind. */
import { spawn } from "node:child_process";
import { chownSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { once } from "node:events";
import { dirname, join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import type { Connection } from "../../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import { holdInventory } from "../support/hold-inventory.ts";
import { fresh, startMesh } from "../support/mesh.ts";
import type { Mesh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import { addressOf, wishFor } from "../support/wishes.ts";
import { devicesIn, pingFrom } from "../support/wires.ts";
import { Refusal } from "../support/workload.ts";
import type { Workload } from "../support/workload.ts";

const NSM = join(dirname(dirname(import.meta.dirname)), "bin/nsm.js");

let mesh: Mesh;
let client: Workload;
let other: Workload;
holdInventory(() => mesh);
beforeAll(async () => {
  mesh = await startMesh({
    nodes: 1,
    endpoints: [
      { name: "near", service: "near", prefixes: "172.16.1.0/24" },
      { name: "tiny", service: "tiny", prefixes: "172.16.2.0/31" },
      { name: "late", service: "late", prefixes: "172.16.3.0/24", started: false },
    ],
    clients: [{ name: "early", services: "kernel://late/nsm-1", started: false }],
    workloads: ["client", "other"],
    pods: ["pod-a", "pod-b"],
  });
  client = await mesh.workload("client", "pod-a");
  other = await mesh.workload("other", "pod-b");
});

/** What the call is refused with. */
async function refusalOf(call: Promise<unknown>): Promise<Refusal> {
  const error: unknown = await call.then(
    () => new Error("it was not refused"),
    (thrown: unknown) => thrown,
  );
  if (error instanceof Refusal) return error;
  throw error;
}

/** Runs a daemon that is to end by itself. */
async function runToItsEnd(role: string, env: Readonly<Record<string, string>>) {
  const child = spawn(process.execPath, [NSM, role], { env, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stdout.on("data", (data: Buffer) => (said += data.toString()));
  child.stderr.on("data", (data: Buffer) => (said += data.toString()));
  await once(child, "close");
  return { code: child.exitCode, said };
}

describe("a client does not start", () => {
  test("with faults in its environment, and names all of them", async () => {
    const env = {
      NSM_CONNECT_TO: "nowhere",
      NSM_DIAL_TIMEOUT: "soon",
      NSM_NETWORK_SERVICES: "http://near",
      NSM_AWARENESS_GROUPS: "[kernel://near",
      NSM_LOCAL_DNS_SERVER_ADDRESS: "localhost:53",
    };
    const { code, said } = await runToItsEnd("nsc", env);
    expect(code).toBe(2);
    for (const [name, value] of Object.entries(env)) {
      expect(said).toContain(name);
      expect(said).toContain(value);
    }
  });

  test("with a malformed service URL, and names it with the remedy", async () => {
    const urls = [
      "http://near/nsm-1",
      "kernel://",
      "kernel://near/a/b",
      "kernel://near/-h",
      "kernel://near/$(id)",
      "kernel://near/x%25d",
      "kernel://near/abcdefghijklmnop",
      "kernel://near/nsm-1,kernel://far/nsm-1",
      "kernel://near:80/nsm-1",
      "kernel://near/nsm-1?a=1&a=2",
    ];
    const runs = urls.map(async (url) => ({
      url,
      ...(await runToItsEnd("nsc", { NSM_NETWORK_SERVICES: url })),
    }));
    for (const { url, code, said } of await Promise.all(runs)) {
      expect(code, url).toBe(2);
      expect(said, url).toContain("NSM_NETWORK_SERVICES");
      expect(said, url).toMatch(/: [a-z]/);
    }
  });

  test("without an identity, and says how to get one", async () => {
    const run = (socket: string) =>
      runToItsEnd("nsc", { SPIFFE_ENDPOINT_SOCKET: socket, NSM_NETWORK_SERVICES: "kernel://near" });
    const nobody = `unix://${mesh.folder}/no-such.sock`;
    const authority = `unix://${mesh.folder}/identity.sock`;
    const [absent, refused] = await Promise.all([run(nobody), run(authority)]);
    expect(absent).toMatchObject({ code: 1, said: expect.stringContaining(nobody) });
    expect(absent.said).toContain("nsm identity");
    expect(refused).toMatchObject({ code: 1, said: expect.stringContaining("uid 0, gid 0") });
    expect(refused.said).toContain("registrations.yaml");
  });
});

test("an endpoint does not take the place of another user's socket", async () => {
  const path = `${mesh.folder}/pods/foreign.sock`;
  const server = createServer().listen(path);
  await once(server, "listening");
  chownSync(path, 65534, 65534);
  const daemon = mesh.start("late", { NSM_LISTEN_ON: `unix://${path}` });
  expect(await daemon.ended).toBe(1);
  expect(JSON.stringify(daemon.log.at(-1))).toMatch(/foreign\.sock is a socket of user 65534; remove it/);
  server.close();
  await once(server, "close");
});

describe("a request is refused", () => {
  const ask = (change: (request: NetworkServiceRequest) => void, interfaceName?: string) => {
    const request = wishFor(client, {
      service: "near",
      ...(interfaceName !== undefined && { interfaceName }),
    });
    change(request);
    return refusalOf(client.request(request));
  };

  test("for a service that nobody offers", async () => {
    const refusal = await refusalOf(client.request(wishFor(client, { service: "no-such" })));
    expect(refusal).toMatchObject({ code: "NOT_FOUND", message: expect.stringContaining('"no-such"') });
    expect(refusal.message).toContain("register it");
  });

  test("for an endpoint that is not there", async () => {
    const refusal = await ask(({ connection }) => {
      if (connection !== undefined) connection.networkServiceEndpointName = "nobody";
    });
    expect(refusal).toMatchObject({ code: "NOT_FOUND", message: expect.stringContaining('"nobody"') });
  });

  test("without a common mechanism", async () => {
    const refusal = await ask((request) => {
      for (const mechanism of request.mechanismPreferences) mechanism.type = "MEMIF";
    });
    expect(refusal).toMatchObject({ code: "FAILED_PRECONDITION", message: expect.stringContaining("MEMIF") });
    expect(refusal.message).toContain("KERNEL");
  });

  test("without any mechanism", async () => {
    const refusal = await ask((request) => {
      request.mechanismPreferences = [];
    });
    expect(refusal).toMatchObject({ code: "FAILED_PRECONDITION", message: expect.stringContaining("none") });
  });

  test("without a connection", async () => {
    expect(await refusalOf(client.request({}))).toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  test("for interface names that are none, or not a client's to choose", async () => {
    const names = [
      "-h",
      "--help",
      "$(id)",
      "x%d",
      "abcdefghijklmnop",
      "lo",
      "all",
      "a/b",
      "a b",
      "..",
      "é",
      "a\nb",
    ];
    for (const name of names)
      expect(await ask(() => undefined, name), name).toMatchObject({
        code: "INVALID_ARGUMENT",
        message: expect.stringContaining(JSON.stringify(name)),
      });
  });

  test("for an interface name that is taken, without touching what has it", async () => {
    const pod = mesh.namespace("pod-a");
    pod.ip("link add taken type veth peer name other");
    try {
      const refusal = await ask(() => undefined, "taken");
      expect(refusal).toMatchObject({ code: "ALREADY_EXISTS", message: expect.stringContaining("taken") });
      expect(devicesIn(pod)).toMatchObject([
        { name: "other", kind: "veth", alias: "" },
        { name: "taken", kind: "veth", alias: "", addresses: [] },
      ]);
    } finally {
      pod.ip("link delete taken");
    }
  });

  const big = (bytes: number) => "x".repeat(bytes);
  const oversized: readonly (readonly [string, (request: NetworkServiceRequest) => void])[] = [
    [
      "33 labels",
      ({ connection }) => {
        for (let i = 0; i < 33; i++) if (connection) connection.labels[`k${i}`] = "v";
      },
    ],
    [
      "a label of 254 bytes",
      ({ connection }) => {
        if (connection) connection.labels["k"] = big(254);
      },
    ],
    [
      "a label's name of 64 bytes",
      ({ connection }) => {
        if (connection) connection.labels[big(64)] = "v";
      },
    ],
    [
      "a connection id of 65 bytes",
      ({ connection }) => {
        if (connection) connection.id = big(65);
      },
    ],
    [
      "a path of 65 segments",
      ({ connection }) => {
        const first = connection?.path?.pathSegments[0];
        if (connection?.path && first) connection.path.pathSegments = Array.from({ length: 65 }, () => first);
      },
    ],
    [
      "17 addresses",
      ({ connection }) => {
        const ip = connection?.context?.ipContext;
        if (ip) ip.srcIpAddrs = Array.from({ length: 17 }, (_, i) => `10.0.0.${i}/32`);
      },
    ],
    [
      "257 excluded prefixes",
      ({ connection }) => {
        const ip = connection?.context?.ipContext;
        if (ip) ip.excludedPrefixes = Array.from({ length: 257 }, (_, i) => `10.${i & 255}.0.0/24`);
      },
    ],
    [
      "17 mechanisms",
      (request) => {
        request.mechanismPreferences = Array.from({ length: 17 }, () => request.mechanismPreferences)
          .flat()
          .slice(0, 17);
      },
    ],
  ];
  test("with more of anything than fits, which it names with its limit", async () => {
    for (const [what, change] of oversized) {
      const refusal = await ask(change);
      expect(refusal, what).toMatchObject({ code: "INVALID_ARGUMENT", reason: "limit" });
      expect(refusal.message, what).toMatch(/\d+/);
    }
  });

  test("as a message of more than 512 KiB", async () => {
    const refusal = await ask(({ connection }) => {
      if (connection) connection.labels["k"] = big(600_000);
    });
    expect(refusal).toMatchObject({ code: "RESOURCE_EXHAUSTED" });
  });

  test("with more than 32 KiB of metadata", async () => {
    const metadata = Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`x-${i}`, big(4000)]));
    const refusal = await refusalOf(client.request(wishFor(client, { service: "near" }), { metadata }));
    expect(refusal.code).toMatch(/^(INVALID_ARGUMENT|RESOURCE_EXHAUSTED)$/);
  });

  test("with a path that lies about its position", async () => {
    const refusal = await ask(({ connection }) => {
      if (connection?.path) connection.path.index = 7;
    });
    expect(refusal).toMatchObject({ code: "INVALID_ARGUMENT", reason: "path-index" });
  });
});

test("an endpoint whose addresses are all given away says so, and serves again after a Close", async () => {
  const first = await client.request(wishFor(client, { service: "tiny" }));
  const refusal = await refusalOf(other.request(wishFor(other, { service: "tiny" })));
  expect(refusal).toMatchObject({
    code: "RESOURCE_EXHAUSTED",
    message: expect.stringContaining("172.16.2.0/31"),
  });
  expect(devicesIn(mesh.namespace("pod-b"))).toEqual([]);
  await client.close(first);
  const second = await other.request(wishFor(other, { service: "tiny" }));
  expect(addressOf(second, "src")).toBe(addressOf(first, "src"));
  await other.close(second);
});

test.for([
  // A frozen process would keep its callers waiting; the forwarder sees that it is.
  { part: "near", code: "UNAVAILABLE", message: /process \d+ of the endpoint is stopped/ },
  { part: "forwarder-node1", code: "DEADLINE_EXCEEDED", message: /./ },
])(
  "a request that $part, stopped, cannot serve ends in time and leaves no device, also when it wakes up",
  async ({ part, code, message }) => {
    mesh.daemon(part).signal("SIGSTOP");
    try {
      const refusal = await refusalOf(
        client.request(wishFor(client, { service: "near" }), { timeoutMs: 700 }),
      );
      expect(refusal).toMatchObject({ code, message: expect.stringMatching(message) });
    } finally {
      mesh.daemon(part).signal("SIGCONT");
    }
    const wire = await requestOnceFree(wishFor(client, { service: "near" }));
    expect(await pingFrom(mesh.namespace("pod-a"), addressOf(wire, "dst"))).toMatchObject({ received: 5 });
    await client.close(wire);
  },
);

/** A forwarder that wakes up may make what nobody waits for any more; its name is free again when that has been closed. */
async function requestOnceFree(wish: NetworkServiceRequest): Promise<Connection> {
  let wire: Connection | undefined;
  await eventually("the name of the interface is free", async () => {
    wire = await client.request(wish).catch((error: unknown) => {
      if (error instanceof Refusal && error.reason === "interface-name-taken") return undefined;
      throw error;
    });
    return wire !== undefined;
  });
  if (wire === undefined) throw new Error("it has just been there");
  return wire;
}

test("an endpoint with the address of a client's name server is refused, for that client alone", async () => {
  const wish = wishFor(client, { service: "near" });
  const parameters = wish.mechanismPreferences[0]?.parameters ?? {};
  parameters["protectedAddresses"] = "192.0.2.53;172.16.1.0;172.16.1.2;172.16.1.4";
  expect(await refusalOf(client.request(wish))).toMatchObject({
    code: "PERMISSION_DENIED",
    reason: "route-not-allowed",
    message: expect.stringContaining("NSM_PROTECTED_ADDRESSES"),
  });
  expect(devicesIn(mesh.namespace("pod-a"))).toEqual([]);
  await client.close(await client.request(wishFor(client, { service: "near" })));
});

test("a client that asked for a service too early gets it when it is registered", async () => {
  const early = mesh.start("early");
  await early.waitFor(
    ({ msg, err }) => msg.includes("request failed") && JSON.stringify(err).includes("not registered"),
  );
  const said = fresh(early);
  const late = mesh.start("late");
  await said("wire established");
  expect(await pingFrom(mesh.namespace("pod-early"), "172.16.3.0")).toMatchObject({ received: 5 });
  expect(await early.stop()).toBe(0);
  expect(await late.stop()).toBe(0);
});

test("garbage on the manager's sockets disturbs nobody", async () => {
  const path = mesh.managerUrl().slice("unix://".length);
  const http = connect(path);
  http.on("error", () => undefined);
  http.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  const silent = connect(path);
  silent.on("error", () => undefined);
  const anonymous = connectTls({ path, rejectUnauthorized: false, ALPNProtocols: ["h2"] });
  anonymous.on("error", () => undefined);
  const isClosed = async (socket: Socket) => void (await once(socket, "close"));
  const closed = [http, silent, anonymous].map(isClosed);

  const wire = await client.request(wishFor(client, { service: "near" }));
  expect(await pingFrom(mesh.namespace("pod-a"), addressOf(wire, "dst"))).toMatchObject({ received: 5 });
  await client.close(wire);
  await Promise.all(closed); // by the server, the silent one after the time for handshakes
  expect(http.bytesRead + silent.bytesRead).toBe(0);
});
