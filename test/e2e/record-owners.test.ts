/** Names and addresses of endpoints: a manager that has been taken over takes over nothing of other nodes, and leads nobody astray. */
import { beforeAll, expect, test } from "vitest";
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../../api/gen/registry_pb.js";
import { Defaults } from "../../sdk/defaults.ts";
import { TRUST_DOMAIN, underlay } from "../../cli/demo/topology.ts";
import { PATH_KEY, writeRegistrationPath } from "../../sdk/registry-path.ts";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import type { Workload } from "../support/workload.ts";

const REGISTRY_URL = `tcp://${underlay.node1}:5002`;
const OWNER = `spiffe://${TRUST_DOMAIN}/nse/near`;
const endpoints = NetworkServiceEndpointRegistry.method;

/** It has a manager's identity. */
let evil: Workload;
const mesh = useMesh({
  nodes: 1,
  endpoints: [
    {
      name: "near",
      service: "near",
      prefixes: "172.16.1.0/24",
      env: { NSM_UNREGISTER_ITSELF: "true" },
    },
  ],
  workloads: ["evil"],
  env: { NSM_MANAGER_IDS: `${Defaults.managerIds},/workload/evil` },
});
beforeAll(async () => {
  evil = await mesh.workload("evil", "node1");
});

/** A registration that its owner seems to have begun: nobody can tell, since the token is for the manager's eyes. */
async function spokenFor(owner: string) {
  const exp = Math.floor(Date.now() / 1000) + 60;
  const first = await evil.token({ sub: owner, aud: [evil.spiffeId], exp });
  return {
    url: REGISTRY_URL,
    metadata: { [PATH_KEY]: writeRegistrationPath({ index: 1, tokens: [first, ""] }) },
  };
}

const record = (name: string, url: string) => ({
  name,
  networkServiceNames: ["near"],
  url,
  pathIds: [OWNER, evil.spiffeId],
});
const known = async () => (await evil.findEndpoints({ name: "near" }, { url: REGISTRY_URL }))[0];

test("a manager cannot speak for an endpoint of another node while that is registered", async () => {
  const before = await known();
  expect(before?.pathIds[1]).toBe(`spiffe://${TRUST_DOMAIN}/nsmgr/node1`);
  const denied = { code: "PERMISSION_DENIED", reason: "other-manager" };
  const hijack = record("near", "tcp://198.51.100.7:5001");
  await expect(evil.call(endpoints.register, hijack, await spokenFor(OWNER))).rejects.toMatchObject(denied);
  await expect(evil.call(endpoints.unregister, hijack, await spokenFor(OWNER))).rejects.toMatchObject(denied);
  expect(await known()).toMatchObject({ url: before?.url, pathIds: before?.pathIds });
});

test("a manager cannot change the network service of endpoints of another node", async () => {
  const denied = { code: "PERMISSION_DENIED", reason: "other-manager" };
  const hijack = {
    name: "near",
    payload: "IP",
    matches: [{ routes: [{ destinationSelector: { app: "evil" } }] }],
    pathIds: [OWNER, evil.spiffeId],
  };
  const services = NetworkServiceRegistry.method;
  await expect(evil.call(services.register, hijack, await spokenFor(OWNER))).rejects.toMatchObject(denied);
  await expect(evil.call(services.unregister, hijack, await spokenFor(OWNER))).rejects.toMatchObject(denied);
});

test("the owner is registered again within a second after its manager was restarted", async () => {
  await mesh.restart("nsmgr-node1");
  await mesh.daemon("nsmgr-node1").waitFor("manager serves");
  const first = (await known())?.expirationTime;
  await eventually(
    "a renewed record",
    async () => (await known())?.expirationTime?.seconds !== first?.seconds,
    20_000,
  );
  expect((await known())?.pathIds[0]).toBe(OWNER);
});

test.for([
  ["tcp://127.0.0.1:6379", "PERMISSION_DENIED", "refused-address"],
  ["tcp://169.254.169.254:80", "PERMISSION_DENIED", "refused-address"],
  ["tcp://[::ffff:127.0.0.1]:6379", "PERMISSION_DENIED", "refused-address"],
  ["tcp://localhost:6379", "INVALID_ARGUMENT", "bad-endpoint-url"],
] as const)("nobody registers an endpoint at %s", async ([url, code, reason]) => {
  const call = evil.call(endpoints.register, record("other", url), await spokenFor(OWNER));
  await expect(call).rejects.toMatchObject({ code, reason });
});

test("an endpoint that has gone leaves its name", async () => {
  expect(await mesh.daemon("near").stop()).toBe(0);
  await eventually("no record", async () => (await known()) === undefined);
  const stored = await evil.call(
    endpoints.register,
    { ...record("near", "tcp://198.51.100.7:5001"), pathIds: [evil.spiffeId] },
    { url: REGISTRY_URL, metadata: { [PATH_KEY]: writeRegistrationPath({ index: 0, tokens: [] }) } },
  );
  expect(stored.pathIds[0]).toBe(evil.spiffeId);
});
