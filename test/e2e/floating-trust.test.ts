/** A floating domain of another trust domain: it takes endpoints in where its services say so, and those who registered them say who may come. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { LINKING, runNsmIn } from "../support/link-commands.ts";
import { useMesh } from "../support/use-mesh.ts";
import { deviceIn, pingFrom } from "../support/wires.ts";

const folder = mkdtempSync(join(tmpdir(), "floating-"));
const file = join(folder, "domains.yaml");
/** The floating registry has its identity from east's authority. */
beforeAll(() =>
  writeFileSync(
    file,
    "domains: { floating: { registry: 'tcp://198.18.0.1:5002', trustDomain: east.nsm } }\n",
  ),
);
afterAll(() => rmSync(folder, { recursive: true }));

const mesh = useMesh({
  clusters: true,
  nodes: 1,
  floating: true,
  workloads: LINKING.workloads,
  networkServices: {
    floating: [
      "kind: NetworkService\nmetadata: { name: open }\nspec: { acceptEndpointsFrom: [west] }\n",
      "kind: NetworkService\nmetadata: { name: closed }\nspec: { exportTo: [west] }\n",
    ].join("---\n"),
  },
  endpoints: [
    { name: "open", node: "node3", service: "open@floating", prefixes: "172.16.7.0/24", env: named("open") },
    {
      name: "closed",
      node: "node3",
      service: "closed@floating",
      prefixes: "172.16.8.0/24",
      env: named("closed"),
      started: false,
    },
  ],
  clients: [{ name: "client", services: "kernel://open@floating/nsm-1", started: false }],
  env: (part): Readonly<Record<string, string>> => {
    if (part === "registry-floating") return { NSM_DNS_DOMAINS: "west=west.nsm" };
    if (part === "proxy-west")
      return { NSM_DOMAINS_PATH: file, NSM_OPERATOR_IDS: "/workload/operator,/operator/*" };
    return {};
  },
});

function named(name: string) {
  return { NSM_NAME: `${name}@floating` };
}

test("an endpoint is registered in another trust domain's registry, for a service that accepts it", async () => {
  await mesh.daemon("open").waitFor("registered", 20_000);
  const refused = mesh.start("closed");
  const { err } = await refused.waitFor((line) => line.msg.includes("not registered yet"), 20_000);
  expect(JSON.stringify(err)).toContain("not-accepted");
  await refused.stop();
});

test("it is reached by those for whom its own domain exports it, by the name that it has there", async () => {
  const client = mesh.start("client");
  const { err } = await client.waitFor("request failed", 20_000);
  expect(JSON.stringify(err)).toContain("open@floating");
  expect(await runNsmIn(mesh, "west", "export", "open@floating", "--to", "east")).toMatchObject({ code: 0 });
  const wire = await mesh.established("client", "nsm-1");
  expect(wire).toMatchObject({ nse: "open@floating" });
  expect(wire.path).toHaveLength(8);
  const pod = mesh.namespace("pod-client");
  expect(deviceIn(pod, "nsm-1").kind).toMatch(/^(wireguard|tun)$/);
  expect((await pingFrom(pod, "172.16.7.0")).received).toBe(5);
  await client.stop();
});
