/** Names of services behind a wire, asked for by an ordinary program of the client's namespace; and what is left of it afterwards. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { queryFor, read } from "../support/dns.ts";
import { eventually } from "../support/netns.ts";
import * as podNames from "../support/pod-names.ts";
import { bindUdp } from "../support/udp.ts";
import { useMesh } from "../support/use-mesh.ts";
import { wishFor } from "../support/wishes.ts";

/** The pod's own; the endpoint's is its end of the wire. */
const OWN_SERVER = "127.0.0.2";
const OFFER = [{ dns_server_ips: ["172.16.1.0", "127.0.0.1"], search_domains: ["my.service"] }];
const ORIGINAL = `# of the pod\r\nsearch\tcorp.example\nnameserver ${OWN_SERVER}\noptions timeout:1 attempts:1`;

const folder = mkdtempSync(join(tmpdir(), "names-"));
const file = join(folder, "resolv.conf");
writeFileSync(file, ORIGINAL);
afterAll(() => rmSync(folder, { recursive: true }));
const mesh = useMesh({
  nodes: 1,
  endpoints: [
    {
      name: "named",
      service: "named",
      prefixes: "172.16.1.0/24",
      env: { NSM_DNS_CONFIGS: JSON.stringify(OFFER) },
    },
    { name: "other", service: "other", prefixes: "172.16.2.0/24" },
  ],
  clients: [
    {
      name: "client",
      services: "kernel://absent/nsm-9,kernel://named/nsm-1,kernel://other/nsm-2",
      env: { NSM_RESOLV_CONF: file, NSM_LOCAL_DNS_SERVER_ENABLED: "true" },
      started: false,
    },
    {
      name: "guest",
      services: "kernel://named/nsm-1",
      env: { NSM_LOCAL_DNS_SERVER_ENABLED: "true" },
      started: false,
    },
  ],
  workloads: ["neighbour"],
  pods: ["pod-neighbour"],
});
const nameServers = new DisposableStack();
afterAll(() => nameServers.dispose());
beforeAll(async () => {
  startNameServer("pod-named", "0.0.0.0", {
    "db.my.service": "172.16.1.80",
    "web.my.service": "172.16.1.81",
  });
  startNameServer("pod-client", OWN_SERVER, {
    "db.corp.example": "192.0.2.80",
    "corp.example": "192.0.2.81",
  });
});

const heard: string[] = [];

/** Names that begin with `hangs` get no answer, those with `fast` always one. */
function startNameServer(place: string, address: string, names: Readonly<Record<string, string>>): void {
  const server = podNames.startNameServer(mesh.namespace(place), address, (name) => {
    heard.push(`${place} ${name}`);
    if (name.startsWith("hangs")) return null;
    return name.startsWith("fast") ? "192.0.2.9" : names[name.toLowerCase()];
  });
  nameServers.use(server);
}

/** As a program in the client's pod would. */
const lookUp = (name: string) => podNames.lookUp(mesh.namespace("pod-client"), file, name);

const isRewritten = () => readFileSync(file, "utf8").includes("\nnameserver 127.0.0.1\n");

test("one service that does not exist holds up none of the others", async () => {
  mesh.start("client");
  const wires = [await mesh.established("client", "nsm-1"), await mesh.established("client", "nsm-2")];
  expect(wires.map(({ nse }) => nse)).toEqual(["named", "other"]);
});

test("names of the service, the pod's own names and short names of both are found, and those of nobody are not", async () => {
  await eventually("the file points to the resolver", isRewritten, 20_000);
  expect(await lookUp("db.my.service")).toBe("172.16.1.80");
  expect(await lookUp("corp.example")).toBe("192.0.2.81");
  expect(await lookUp("web")).toBe("172.16.1.81");
  expect(await lookUp("db")).toBe("192.0.2.80"); // the pod's search domain comes first
  expect(await lookUp("nowhere")).toBe("none");
  expect(heard).not.toContain("pod-client db.my.service");
  expect(heard).not.toContain("pod-named corp.example");
});

test("a loopback address among the offered servers is refused, and said so", async () => {
  const line = await mesh.daemon("client").waitFor("some name servers of an endpoint are not used");
  expect(line["refused"]).toEqual(['server "127.0.0.1" is a loopback address']);
});

test("the machine's own resolv.conf is not touched by a client in a namespace without one", async () => {
  const machines = readFileSync("/etc/resolv.conf");
  mesh.start("guest");
  const line = await mesh.daemon("guest").waitFor("programs are not told of the resolver");
  expect(line).toMatchObject({ path: "/etc/resolv.conf", msg: expect.stringContaining("NSM_RESOLV_CONF") });
  expect(readFileSync("/etc/resolv.conf")).toEqual(machines);
  expect(await mesh.daemon("guest").stop()).toBe(0);
});

test("T43: 64 names that hang neither keep another from being found, nor slow it or a request down", async () => {
  await using neighbour = await mesh.workload("neighbour", "pod-neighbour");
  const request = async () =>
    neighbour.close(await neighbour.request(wishFor(neighbour, { service: "other" })));
  /** Medians, in milliseconds. */
  const measure = async (round: string) => ({
    found: await medianOf(20, (i) => find(`fast-${round}-${i}.my.service`)),
    served: await medianOf(10, request),
  });
  await measure("first"); // what is loaded with the first use
  const before = await measure("before");
  const hanging = Array.from({ length: 64 }, (_, i) => lookUp(`hangs-${i}.corp.example`));
  const asked = () => new Set(heard.filter((line) => line.startsWith("pod-client hangs-"))).size;
  await eventually("all of them hang", () => asked() >= 64, 20_000);
  const meanwhile = await measure("meanwhile");
  expect(await lookUp("db.my.service")).toBe("172.16.1.80");
  expect(new Set(await Promise.all(hanging))).toEqual(new Set(["none"]));
  const after = await measure("after");
  for (const what of ["found", "served"] as const)
    expect(meanwhile[what], what).toBeLessThan(3 * Math.max(before[what], after[what]) + 10);
});

async function medianOf(count: number, body: (index: number) => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const startedMs = performance.now();
    await body(i);
    times.push(performance.now() - startedMs);
  }
  return times.sort((a, b) => a - b)[Math.floor(count / 2)] ?? NaN;
}

/** Asks the resolver itself; fails unless it finds the name. */
async function find(name: string): Promise<void> {
  const socket = bindUdp(mesh.namespace("pod-client"), "127.0.0.1");
  try {
    const answer = new Promise<Buffer>((resolve) => void socket.once("message", resolve));
    socket.send(queryFor(name), 53, "127.0.0.1");
    expect(read(await answer).records).toHaveLength(1);
  } finally {
    socket.close();
  }
}

test("a client that was killed leaves the file; the next one still knows the original, and names work", async () => {
  await mesh.daemon("client").kill();
  expect(isRewritten()).toBe(true);
  mesh.start("client");
  await mesh.established("client", "nsm-1");
  await eventually("the file points to the resolver", isRewritten, 20_000);
  expect(await lookUp("web.my.service")).toBe("172.16.1.81");
  expect(await lookUp("corp.example")).toBe("192.0.2.81");
});

test("an endpoint that comes back without names takes them along, and the file is as it was", async () => {
  expect(await mesh.daemon("named").stop()).toBe(0);
  mesh.start("named", { NSM_DNS_CONFIGS: "[]" });
  await eventually("the file is as it was", () => readFileSync(file, "utf8") === ORIGINAL, 60_000);
  expect(await lookUp("corp.example")).toBe("192.0.2.81");
});

test("and with names again; when the client ends the file is as it was, byte by byte", async () => {
  expect(await mesh.daemon("named").stop()).toBe(0);
  mesh.start("named");
  await eventually("the file points to the resolver", isRewritten, 60_000);
  expect(await lookUp("db.my.service")).toBe("172.16.1.80");
  expect(await mesh.daemon("client").stop()).toBe(0);
  expect(readFileSync(file, "latin1")).toBe(ORIGINAL);
  nameServers.dispose();
  await mesh.expectAsStarted();
});
