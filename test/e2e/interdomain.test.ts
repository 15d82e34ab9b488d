/**
 * Wires from one domain into another, asked for by the name of that domain and by the name of a third one that is a registry
 * alone (`floating`): the rows of the Go suite "interdomain" that need no more than a client and an endpoint.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { NetworkServiceRegistry } from "../../api/gen/registry_pb.js";
import { proxyRolesApart } from "../support/proxy-roles.ts";
import { eventually } from "../support/netns.ts";
import type { NamedNamespace } from "../support/netns.ts";
import { lookUp, startNameServer } from "../support/pod-names.ts";
import { useMesh } from "../support/use-mesh.ts";
import { deviceIn, devicesIn, pingFrom } from "../support/wires.ts";
import type { Workload } from "../support/workload.ts";

const rows = [
  { row: "interdomain_Kernel2IP2Kernel", domain: "west", payload: "IP" },
  { row: "interdomain_Kernel2Ethernet2Kernel", domain: "west", payload: "ETHERNET" },
  { row: "floating_Kernel2IP2Kernel", domain: "floating", payload: "IP" },
  { row: "floating_Kernel2Ethernet2Kernel", domain: "floating", payload: "ETHERNET" },
] as const;
const dnsRows = [
  { row: "interdomain_dns", domain: "west" },
  { row: "floating_dns", domain: "floating" },
] as const;

/** What an endpoint of a domain is called where it registers: one of the west gives its plain name, or one of the floating domain. */
const among = (domain: string, name: string) => (domain === "west" ? name : `${name}@${domain}`);
const partOf = (row: string) =>
  row.toLowerCase().replaceAll("_", "-").replace("kernel2", "").replace("2kernel", "");

const folder = mkdtempSync(join(tmpdir(), "interdomain-"));
const resolvConf = join(folder, "resolv.conf");
const ORIGINAL = "nameserver 127.0.0.2\noptions timeout:1 attempts:1\n";
const OFFER = JSON.stringify([{ dns_server_ips: ["172.16.1.2"], search_domains: ["my.service"] }]);

// Before the mesh, so that the file is there as long as its inventory counts.
beforeAll(() => writeFileSync(resolvConf, ORIGINAL));
afterAll(() => rmSync(folder, { recursive: true }));

const mesh = useMesh({
  clusters: "unified",
  nodes: 1,
  floating: true,
  endpoints: [...rows, ...dnsRows].map((each) => {
    const name = partOf(each.row);
    return {
      name,
      node: "node3" as const,
      service: among(each.domain, name),
      payload: "payload" in each ? each.payload : "IP",
      prefixes: "172.16.1.2/31",
      env: {
        NSM_NAME: among(each.domain, name),
        ...(!("payload" in each) && { NSM_DNS_CONFIGS: OFFER }),
      },
    };
  }),
  clients: [...rows, ...dnsRows].map((each) => {
    const name = partOf(each.row);
    return {
      name: `to-${name}`,
      services: `kernel://${name}@${each.domain}/nsm-1`,
      env: "payload" in each ? {} : { NSM_RESOLV_CONF: resolvConf, NSM_LOCAL_DNS_SERVER_ENABLED: "true" },
      started: false,
    };
  }),
  workloads: ["asker"],
  pods: ["pod-asker"],
});

/** Starts the row's client, which gets the addresses of the examples: the endpoint .2, the client .3; resolves with its path. */
async function connect(row: string) {
  const [client, endpoint] = [`to-${partOf(row)}`, partOf(row)];
  mesh.start(client);
  const { path } = await mesh.established(client, "nsm-1");
  const pods = { client: mesh.namespace(`pod-${client}`), endpoint: mesh.namespace(`pod-${endpoint}`) };
  expect(deviceIn(pods.client, "nsm-1").addresses[0]).toMatch(/^172\.16\.1\.3\//);
  expect(await pingFrom(pods.client, "172.16.1.2")).toMatchObject({ received: 5 });
  expect(await pingFrom(pods.endpoint, "172.16.1.3")).toMatchObject({ received: 5 });
  return { path, pods };
}

async function end(row: string) {
  expect(await mesh.daemon(`to-${partOf(row)}`).stop()).toBe(0);
  expect(devicesIn(mesh.namespace(`pod-${partOf(row)}`))).toEqual([]);
  await mesh.expectAsStarted();
}

test.for(rows.filter(({ payload }) => payload === "IP"))("$row", async ({ row, domain }) => {
  const { path, pods } = await connect(row);
  expect(path).toEqual(pathOf(row, domain));
  expect(deviceIn(pods.client, "nsm-1").kind).toMatch(/^(wireguard|tun)$/); // user-space WireGuard is a tun device
  await end(row);
});

test.for(rows.filter(({ payload }) => payload === "ETHERNET"))(
  "$row: refused, because nothing goes unencrypted between domains, until both allow it",
  async ({ row, domain }) => {
    const { err } = await mesh.start(`to-${partOf(row)}`).waitFor("request failed", 20_000);
    expect(err).toMatchObject({ code: "FAILED_PRECONDITION", message: expect.stringContaining("encrypted") });
    for (const pod of [`pod-to-${partOf(row)}`, `pod-${partOf(row)}`])
      expect(devicesIn(mesh.namespace(pod))).toEqual([]);
    await mesh.daemon(`to-${partOf(row)}`).stop();
    await mesh.expectAsStarted();

    await startProxiesAnew({ NSM_ALLOW_UNENCRYPTED_DOMAINS: "west,floating,demo.nsm" });
    const { path, pods } = await connect(row);
    expect(path).toEqual(pathOf(row, domain));
    expect(deviceIn(pods.client, "nsm-1").kind).toBe("vxlan");
    await end(row);
    await startProxiesAnew({});
  },
);

const pathOf = (row: string, domain: string) => [
  `to-${partOf(row)}`,
  "nsmgr-node1",
  "forwarder-node1",
  "proxy-east",
  "proxy-west",
  "nsmgr-node3",
  "forwarder-node3",
  among(domain, partOf(row)),
];

async function startProxiesAnew(env: Readonly<Record<string, string>>) {
  for (const name of ["proxy-east", "proxy-west"]) {
    await mesh.daemon(name).kill();
    await mesh.start(name, env).waitFor("proxy serves", 20_000);
  }
}

/** Two seconds, and what it costs a busy machine to begin and tell of 64 streams at once. */
const SILENT_WITHIN_MS = 3 * 2000;
const HANGING = Array.from({ length: 64 }, (_, i) => `hangs-${i}`);

test("each role of both proxies alone, and domains that DNS knows: the rows are the same", async () => {
  {
    await using roles = await proxyRolesApart(mesh, folder, ["floating", ...HANGING]);
    for (const { row, domain } of rows.filter(({ payload }) => payload === "IP")) {
      const { path } = await connect(row);
      expect(path).toEqual(pathOf(row, domain));
      expect(await mesh.daemon(`to-${partOf(row)}`).stop()).toBe(0);
      expect(devicesIn(mesh.namespace(`pod-${partOf(row)}`))).toEqual([]);
    }
    const names = new Set(roles.asked("west"));
    expect(names).toEqual(new Set(["registry.nsm-system.west", "nsmgr-proxy.nsm-system.west"]));

    await using asker = await mesh.workload("asker", "pod-asker");
    for (const { refusal, tookMs } of await Promise.all(HANGING.map((domain) => refusalOf(asker, domain)))) {
      expect(refusal).toMatchObject({ code: "UNAVAILABLE", reason: "domain-silent" });
      expect(tookMs).toBeLessThan(SILENT_WITHIN_MS);
    }
    const { refusal } = await refusalOf(asker, "nowhere");
    expect(refusal).toMatchObject({ code: "NOT_FOUND", reason: "domain-not-found" });
    expect(roles.asked("nowhere")).toEqual([]); // nobody named it
  }
  await mesh.expectAsStarted();
});

async function refusalOf(asker: Workload, domain: string) {
  const query = { networkService: { name: `service@${domain}` } };
  const startedMs = performance.now();
  const refusal = await (await asker.stream(NetworkServiceRegistry.method.find, query)).refused();
  return { refusal, tookMs: performance.now() - startedMs };
}

test.for(dnsRows)("$row", async ({ row }) => {
  const { pods } = await connect(row);
  await expectNames(pods);
  await end(row);
  expect(readFileSync(resolvConf, "utf8")).toBe(ORIGINAL);
});

/** With a name server at either end: names behind the wire, short ones too, and the pod's own. */
async function expectNames(pods: Awaited<ReturnType<typeof connect>>["pods"]) {
  using servers = new DisposableStack();
  const serve = (ns: NamedNamespace, address: string, known: string, at: string) =>
    servers.use(startNameServer(ns, address, (name) => (name === known ? at : undefined)));
  serve(pods.client, "127.0.0.2", "corp.example", "192.0.2.81");
  serve(pods.endpoint, "172.16.1.2", "db.my.service", "172.16.1.80");
  await eventually("the file points to the resolver", () =>
    readFileSync(resolvConf, "utf8").includes("nameserver 127.0.0.1\n"),
  );
  const find = (name: string) => lookUp(pods.client, resolvConf, name);
  expect(await find("db.my.service")).toBe("172.16.1.80");
  expect(await find("db")).toBe("172.16.1.80");
  expect(await find("corp.example")).toBe("192.0.2.81");
  expect(await find("nowhere.my.service")).toBe("none");
}
