/** Services with endpoints in several domains (docs/protocol.md, "Services of several domains"): real chains, registries and proxies in one process. */
import { expect, onTestFinished, test } from "vitest";
import { startDomains } from "../../support/in-process-domains.ts";
import { hopsIn } from "../../support/in-process.ts";
import type { ClientHandle } from "../../support/in-process-parts.ts";
import { create } from "@bufbuild/protobuf";
import { NetworkServiceEndpointSchema } from "../../../api/gen/registry_pb.js";
import { findAll } from "../../../sdk/registry/registry.ts";
import type { Registries } from "../../../sdk/registry/registry.ts";
import { eventually } from "../../support/netns.ts";

async function start<const N extends string>(...names: readonly N[]) {
  const started = await startDomains(...names);
  onTestFinished(() => started[Symbol.asyncDispose]());
  return started.domains;
}

const endpointsOf = (registries: Registries, service: string) =>
  findAll(
    registries.endpoints,
    create(NetworkServiceEndpointSchema, { networkServiceNames: [service] }),
    AbortSignal.timeout(5000),
  );

/** Waits until a registry has these endpoints of `web`, and no others. */
const knows = (registries: Registries, ...names: readonly string[]) =>
  eventually(`endpoints ${names.join(", ")}`, async () => {
    const found = (await endpointsOf(registries, "web")).map(({ name }) => name);
    return found.toSorted().join() === names.toSorted().join();
  });

/** Endpoints that new wires of a client are led to, in their order. */
async function choices(client: ClientHandle, count: number, labels: Record<string, string> = {}) {
  const chosen: string[] = [];
  for (let i = 0; i < count; i++) {
    const wire = await client.connect("web", { id: `${i}`, labels });
    chosen.push(wire.networkServiceEndpointName);
    await client.close(wire);
  }
  return chosen;
}

const WEST = ["west"];

test("a service has the endpoints of another domain, too: wires lead there by both proxies, and are refreshed and closed", async () => {
  const { east, west } = await start("east", "west");
  await east.service({ name: "web", payload: "IP", importFrom: WEST });
  await west.service({ name: "web", payload: "IP" });
  const [here] = await east.nodes("one");
  const [there] = await west.nodes("two");
  const endpoint = await there.endpoint({ name: "nse", service: "web", labels: { app: "x" } });
  await knows(east.registries, "nse@west");
  const [record] = await endpointsOf(east.registries, "web");
  expect(record?.networkServiceLabels["web"]?.labels).toEqual({
    app: "x",
    nodeName: "two",
    "nsm.io/domain": "west",
  });
  const client = await here.client("nsc");
  const connection = await client.connect("web");
  expect(hopsIn(connection)).toHaveLength(8);
  expect(connection).toMatchObject({
    networkService: "web",
    networkServiceEndpointName: "nse@west",
    payload: "IP",
  });
  const refreshed = await client.refresh(connection);
  expect(refreshed).toMatchObject({ networkService: "web", networkServiceEndpointName: "nse@west" });
  await client.close(refreshed);
  expect(endpoint.counts).toMatchObject({ requests: 2, closes: 1 });
  await endpoint.kill();
  await knows(east.registries);
});

test("weights between domains are shifted by a change of the service, and what is imported no more is gone", async () => {
  const { east, west } = await start("east", "west");
  const split = (blue: number, green: number) =>
    east.service({
      name: "web",
      payload: "IP",
      importFrom: WEST,
      matches: [
        {
          routes: [
            { destinationSelector: { app: "blue" }, weight: blue },
            { destinationSelector: { app: "green" }, weight: green },
          ],
        },
      ],
    });
  await split(1, 1);
  await west.service({ name: "web", payload: "IP" });
  const [here] = await east.nodes("one");
  const [there] = await west.nodes("two");
  await here.endpoint({ name: "blue", service: "web", labels: { app: "blue" } });
  await there.endpoint({ name: "green", service: "web", labels: { app: "green" } });
  await knows(east.registries, "blue", "green@west");
  const client = await here.client("nsc");
  const share = (chosen: readonly string[]) => chosen.filter((name) => name === "green@west").length;
  expect(share(await choices(client, 8))).toBe(4);
  await split(1, 3);
  await eventually("the new weights", async () => share(await choices(client, 8)) === 6);
  await east.service({ name: "web", payload: "IP" });
  await knows(east.registries, "blue");
  await eventually("blue alone", async () => share(await choices(client, 4)) === 0);
});

test("near endpoints are those of the own domain, also where nodes have the same names", async () => {
  const { east, west } = await start("east", "west");
  await east.service({ name: "web", payload: "IP", importFrom: WEST });
  await west.service({ name: "web", payload: "IP" });
  const [one, other] = await east.nodes("one", "other");
  const [twin] = await west.nodes("twin");
  // As if both clusters called it so.
  await twin.endpoint({ name: "far", service: "web", labels: { nodeName: "one" } });
  const near = await other.endpoint({ name: "near", service: "web" });
  await knows(east.registries, "near", "far@west");
  const client = await one.client("nsc");
  const prefer = { "nsm.io/locality": "prefer" };
  expect(new Set(await choices(client, 4, prefer))).toEqual(new Set(["near"]));
  await near.kill();
  await knows(east.registries, "far@west");
  expect(await choices(client, 1, prefer)).toEqual(["far@west"]);
});

test("a backup serves in the other domain while the primary here is away, and is left when that is back", async () => {
  const { east, west } = await start("east", "west");
  await east.service({ name: "web", payload: "IP", importFrom: WEST });
  await west.service({ name: "web", payload: "IP" });
  const [here] = await east.nodes("one");
  const [there] = await west.nodes("two");
  const primary = { name: "primary", service: "web" };
  const first = await here.endpoint(primary);
  const backup = await there.endpoint({ name: "backup", service: "web", labels: { "nsm.io/tier": "1" } });
  await knows(east.registries, "primary", "backup@west");
  const kept = (await here.client("nsc")).keep("web");
  expect((await kept.up()).networkServiceEndpointName).toBe("primary");
  await first.kill();
  expect((await kept.up(2)).networkServiceEndpointName).toBe("backup@west");
  await here.endpoint(primary);
  expect((await kept.up(3)).networkServiceEndpointName).toBe("primary");
  await kept.stop();
  expect(backup.counts.closes).toBe(1);
});

test("endpoints of a domain that does not answer come last, serve nobody whom others serve, and are used again when it is back", async () => {
  const { east, west } = await start("east", "west");
  await east.service({ name: "web", payload: "IP", importFrom: WEST });
  await west.service({ name: "web", payload: "IP" });
  const [here] = await east.nodes("one");
  const [there] = await west.nodes("two");
  await there.endpoint({ name: "primary", service: "web" });
  await here.endpoint({ name: "backup", service: "web", labels: { "nsm.io/tier": "1" } });
  await knows(east.registries, "backup", "primary@west");
  const client = await here.client("nsc");
  expect(await choices(client, 1)).toEqual(["primary@west"]);
  const isAway = async () =>
    (await endpointsOf(east.registries, "web")).some(
      ({ networkServiceLabels: labels }) => labels["web"]?.labels["nsm.io/away"] === "true",
    );
  west.setRegistry(false);
  west.killProxy();
  await eventually("west is away", isAway);
  await eventually("the backup first", async () => (await choices(client, 1))[0] === "backup");
  await knows(east.registries, "backup", "primary@west");
  west.setRegistry(true);
  await west.startProxy();
  await eventually("west is back", async () => !(await isAway()));
  await eventually("the primary again", async () => (await choices(client, 1))[0] === "primary@west");
});

test("a service whose own endpoints are elsewhere alone is waited for", async () => {
  const { east, west } = await start("east", "west");
  await east.service({ name: "web", payload: "IP", importFrom: WEST });
  await west.service({ name: "web", payload: "IP" });
  const [here] = await east.nodes("one");
  const [there] = await west.nodes("two");
  const kept = (await here.client("nsc")).keep("web");
  await eventually("a refusal", () => kept.failures > 0);
  await there.endpoint({ name: "nse", service: "web" });
  expect((await kept.up()).networkServiceEndpointName).toBe("nse@west");
  await kept.stop();
});

test("the rules of a service lead along a chain across: the firewall here, the gateway there", async () => {
  const { east, west } = await start("east", "west");
  const to = (app: string) => ({ routes: [{ destinationSelector: { app } }] });
  const matches = [{ sourceSelector: { app: "firewall" }, ...to("gateway") }, to("firewall")];
  await east.service({ name: "web", payload: "IP", importFrom: WEST, matches });
  await west.service({ name: "web", payload: "IP", matches });
  const [here] = await east.nodes("one");
  const [there] = await west.nodes("two");
  await here.endpoint({ name: "firewall", service: "web", labels: { app: "firewall" } });
  await there.endpoint({ name: "gateway", service: "web", labels: { app: "gateway" } });
  await knows(east.registries, "firewall", "gateway@west");
  const client = await here.client("nsc");
  expect(await choices(client, 2)).toEqual(["firewall", "firewall"]);
  // An endpoint that passes on asks again, with its own labels.
  const firewall = await here.client("firewall");
  const wire = await firewall.connect("web", { labels: { app: "firewall" } });
  expect(wire.networkServiceEndpointName).toBe("gateway@west");
  expect(hopsIn(wire)).toHaveLength(8);
  await firewall.close(wire);
});

test("a floating domain: endpoints of several domains serve a service here, and the end of one domain is not that of the others", async () => {
  const { east, west, south, floating } = await start("east", "west", "south", "floating");
  await east.service({ name: "web", payload: "IP", importFrom: ["floating"] });
  await floating.service({ name: "web", payload: "IP" });
  const [here] = await east.nodes("one");
  const [two] = await west.nodes("two");
  const [three] = await south.nodes("three");
  for (const [node, name] of [
    [two, "a@floating"],
    [three, "b@floating"],
  ] as const)
    await node.endpoint({ name, service: "web@floating" });
  await knows(east.registries, "a@floating", "b@floating");
  const client = await here.client("nsc");
  expect(new Set(await choices(client, 4))).toEqual(new Set(["a@floating", "b@floating"]));
  west.killProxy();
  expect(new Set(await choices(client, 4))).toEqual(new Set(["b@floating"]));
});
