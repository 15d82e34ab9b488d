/** Endpoints on demand: started by the first client, stopped when the last has gone (docs/protocol.md, "Endpoints on demand"). */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { selfCommand } from "../../cli/package-root.ts";
import { fresh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { devicesIn, pingFrom } from "../support/wires.ts";

const SERVICE = `kind: NetworkService
metadata: { name: rare }
spec:
  payload: IP
  matches:
    - { fallthrough: true, routes: [{ destination_selector: { app: rare } }] }
    - { routes: [{ destination_selector: { app: supplier } }] }
`;

const mesh = useMesh({
  nodes: 1,
  networkServices: SERVICE,
  endpoints: [
    {
      name: "supplier",
      service: "rare",
      kind: "supplier",
      env: {
        NSM_LABELS: "app:supplier",
        NSM_IDLE_TIMEOUT: "1s",
        NSM_SUPPLY_COMMAND: JSON.stringify([...selfCommand(), "nse"]),
        NSM_SUPPLY_ENV: JSON.stringify({ NSM_LABELS: "app:rare", NSM_CIDR_PREFIX: "172.16.7.0/24" }),
      },
    },
  ],
  clients: ["one", "two"].map((name) => ({ name, services: "kernel://rare/nsm-1", started: false })),
});

const startedPids = () =>
  mesh
    .daemon("supplier")
    .log.filter(({ msg }) => msg === "endpoint started")
    .map(({ pid }) => Number(pid));

test("ScaleFromZero: two clients get one endpoint, which stops when both have gone", async () => {
  const said = fresh(mesh.daemon("supplier"));
  for (const name of ["one", "two"]) mesh.start(name);
  for (const name of ["one", "two"]) {
    const { nse, peerAddresses } = await mesh.established(name, "nsm-1");
    expect(nse).toMatch(/^supplier-[0-9a-f]{8}$/);
    const target = peerAddresses[0]?.split("/")[0] ?? "";
    expect(target).toMatch(/^172\.16\.7\./);
    expect(await pingFrom(mesh.namespace(`pod-${name}`), target)).toMatchObject({ received: 5 });
  }
  expect(startedPids()).toHaveLength(1);
  for (const name of ["one", "two"]) await mesh.daemon(name).stop();
  await said("endpoint ended by itself");
  expect(devicesIn(mesh.namespace("pod-supplier"))).toEqual([]);
});

test("what it started dies with the supplier, also when that is killed", async () => {
  mesh.start("one");
  await mesh.established("one", "nsm-1");
  const pid = startedPids().at(-1) ?? 0;
  expect(existsSync(join("/proc", String(pid)))).toBe(true);
  await mesh.daemon("supplier").kill();
  await eventually("its endpoint has ended", () => !existsSync(join("/proc", String(pid))));
  await mesh.daemon("one").stop();
});
