/** Who serves a client: matches, tiers and nearness, and what becomes of wires when these change while they are in use. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { beforeAll, expect, test } from "vitest";
import { ConnectionEventType, State } from "../../api/gen/connection_pb.js";
import { NetworkServiceRegistry } from "../../api/gen/registry_pb.js";
import type { NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import { EMPTY_PATH, PATH_KEY, writeRegistrationPath } from "../../sdk/registry-path.ts";
import { gidOfWorkload } from "../support/mesh-topology.ts";
import type { MeshOptions } from "../support/mesh-topology.ts";
import { fresh } from "../support/mesh.ts";
import { eventually } from "../support/netns.ts";
import { runNsm } from "../support/nsm.ts";
import { useMesh } from "../support/use-mesh.ts";
import { devicesIn, pingFrom } from "../support/wires.ts";
import { addressOf, segmentsOf, wishFor } from "../support/wishes.ts";
import { Refusal } from "../support/workload.ts";
import type { Workload } from "../support/workload.ts";

const FAILBACK_MS = 2000;
/** For an edit to be noticed, and a wire to be made. */
const MOVED_WITHIN_MS = 10_000;

const offers = (service: string, name: string, labels: string, node: "node1" | "node2", subnet: number) => ({
  name,
  service,
  node,
  prefixes: `172.16.${subnet}.0/24`,
  env: { NSM_LABELS: labels, NSM_REGISTER_SERVICE: "false" },
});

const options: MeshOptions = {
  endpoints: [
    offers("colours", "blue", "colour:blue", "node1", 1),
    offers("colours", "green", "colour:green", "node2", 2),
    offers("tiers", "primary", "nsm.io/tier:0", "node1", 3),
    offers("tiers", "backup", "nsm.io/tier:1", "node1", 4),
    offers("near", "left", "nsm.io/locality:prefer", "node1", 5),
    offers("near", "right", "nsm.io/locality:prefer", "node2", 6),
  ],
  clients: [
    { name: "painter", services: "kernel://colours/nsm-1", started: false },
    { name: "careful", services: "kernel://tiers/nsm-1", started: false },
    ...["node1" as const, "node2" as const].map((node) => ({
      name: `on-${node}`,
      node,
      services: "kernel://near/nsm-1,kernel://near/nsm-2,kernel://near/nsm-3",
      started: false,
    })),
  ],
  workloads: ["operator", "watcher"],
  pods: ["pod-operator"],
  env: { NSM_FAILBACK_DELAY: `${FAILBACK_MS}ms`, NSM_OPERATOR_IDS: "/workload/watcher" },
};

let operator: Workload;
const mesh = useMesh(options);
beforeAll(async () => {
  operator = await mesh.workload("operator", "pod-operator");
  await register({ name: "colours", payload: "IP", matches: leadTo("blue") });
  await register({ name: "tiers", payload: "IP" });
  await register({ name: "near", payload: "IP" });
});

async function register(service: MessageInitShape<typeof NetworkServiceSchema>): Promise<void> {
  const metadata = { [PATH_KEY]: writeRegistrationPath(EMPTY_PATH) };
  await operator.call(NetworkServiceRegistry.method.register, service, { metadata });
}

function leadTo(colour: string) {
  return [{ routes: [{ destinationSelector: { colour } }] }];
}

const explain = (...args: string[]) =>
  runNsm({
    netns: mesh.namespace("node1").name,
    gid: gidOfWorkload(options, "watcher"),
    env: {
      SPIFFE_ENDPOINT_SOCKET: `unix://${mesh.folder}/identity.sock`,
      NSM_CONNECT_TO: mesh.managerUrl(),
    },
    args: ["explain", ...args],
  });

/** Waits until a client that was there before says that it has a wire to `nse`. */
async function moved(client: string, nse: string, cause: () => Promise<unknown>): Promise<void> {
  const said = fresh(mesh.daemon(client));
  await cause();
  await said((line) => line.msg === "wire established" && line["nse"] === nse, MOVED_WITHIN_MS);
}

test("ReselectEndpointWhenNetSvcHasChanged: a client follows the service that it uses", async () => {
  mesh.start("painter");
  expect(await mesh.established("painter", "nsm-1")).toMatchObject({ nse: "blue" });
  await moved("painter", "green", () =>
    register({ name: "colours", payload: "IP", matches: leadTo("green") }),
  );
  expect(await pingFrom(mesh.namespace("pod-painter"), "172.16.2.0")).toMatchObject({ received: 5 });
  await eventually("blue has no device", () => devicesIn(mesh.namespace("pod-blue")).length === 0);
  expect(devicesIn(mesh.namespace("pod-painter"))).toHaveLength(1);
});

test.for([
  { what: "a label that nobody has", colour: "mauve", remark: "", target: "172.16.2.0", next: "blue" },
  {
    what: "a template that does not parse",
    colour: "{{.wish",
    remark: " (as it stands: no template that is understood)",
    target: "172.16.1.0",
    next: "green",
  },
])(
  "a service that leads nowhere any more cuts nobody off, and its wires say so: $what",
  async ({ colour, remark, target, next }) => {
    const said = fresh(mesh.daemon("nsmgr-node1"));
    await register({ name: "colours", payload: "IP", matches: leadTo(colour) });
    await said((line) => line.msg.includes("the wire stays") && line["reason"] === "no-candidates");
    expect(await pingFrom(mesh.namespace("pod-painter"), target)).toMatchObject({ received: 5 });
    // A client that comes now is refused, and can be told why.
    const wish = wishFor(operator, { service: "colours" });
    expect(await operator.request(wish).catch((error: unknown) => error)).toMatchObject({
      code: "NOT_FOUND",
      reason: "no-candidates",
    });
    const { stdout } = await explain("painter", "colours");
    expect(stdout).toContain(`match 1 wants colour=${colour}${remark}, not blue`);
    await moved("painter", next, () => register({ name: "colours", payload: "IP", matches: leadTo(next) }));
  },
);

test("an endpoint that a client names must be one that the service leads it to", async () => {
  await register({ name: "colours", payload: "IP", matches: leadTo("green") });
  const naming = (endpoint: string) => {
    const wish = wishFor(operator, { service: "colours" });
    if (wish.connection !== undefined) wish.connection.networkServiceEndpointName = endpoint;
    return wish;
  };
  const refused = await operator.request(naming("blue")).catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(Refusal);
  expect(refused).toMatchObject({ code: "NOT_FOUND", reason: "endpoint-mismatch" });
  expect(devicesIn(mesh.namespace("pod-operator"))).toEqual([]);
  const wire = await operator.request(naming("green"));
  expect(segmentsOf(wire)).toHaveLength(6);
  expect(addressOf(wire, "dst")).toMatch(/^172\.16\.2\./);
  await operator.close(wire);
});

test("nsm explain says of each endpoint why it is taken or not", async () => {
  // The test before has changed the service: the wire is on its way.
  await eventually("the wire is at green", async () =>
    /^green +in use +chosen/m.test((await explain("painter", "colours")).stdout),
  );
  const { code, stdout } = await explain("painter", "colours");
  expect(code).toBe(0);
  expect(stdout).toMatch(/^match 1 of \d .*decides$/m);
  expect(stdout).toMatch(/^green +in use +chosen +0 +any +100 % +serves the wire/m);
  expect(stdout).toMatch(/^blue +no +selector-mismatch .*match 1 wants colour=green, not blue$/m);
  expect(stdout).toMatch(/^forwarder-node1 +in use +chosen/m);
  const tiers = await explain("somebody", "tiers", "-o", "json", "--label", "nodeName=node1");
  expect(JSON.parse(tiers.stdout)).toMatchObject({
    wire: null,
    labels: { nodeName: "node1" },
    endpoints: [
      { name: "primary", reason: "turn", tier: 0, share: 1 },
      { name: "backup", reason: "lower-tier", tier: 1, isCandidate: true },
    ],
  });
  expect(await explain("painter", "nothing")).toMatchObject({
    code: 4,
    stderr: expect.stringContaining('"nothing"'),
  });
});

test("a client that cannot choose anew by itself is told that its wire is gone", async () => {
  const wire = await operator.request(wishFor(operator, { service: "colours" }));
  expect(wire.networkServiceEndpointName).toBe("green");
  const events = await operator.monitor({ pathSegments: [{ id: wire.id }] });
  await events.waitFor(({ type }) => type === ConnectionEventType.INITIAL_STATE_TRANSFER);
  await register({ name: "colours", payload: "IP", matches: leadTo("blue") });
  await events.waitFor(({ type }) => type === ConnectionEventType.DELETE);
  const states = events.messages.flatMap(({ connections }) =>
    Object.values(connections).map(({ state }) => state),
  );
  expect(states).not.toContain(State.RESELECT_REQUESTED);
  await events.stop();
  await eventually("no device of the operator", () => devicesIn(mesh.namespace("pod-operator")).length === 0);
});

test("the backup serves while the primary is away, and is left some time after it has come back", async () => {
  mesh.start("careful");
  expect(await mesh.established("careful", "nsm-1")).toMatchObject({ nse: "primary" });
  await moved("careful", "backup", () => mesh.daemon("primary").kill());
  const startedAt = Date.now();
  await moved("careful", "primary", async () => {
    mesh.start("primary");
    await Promise.resolve();
  });
  expect(Date.now() - startedAt).toBeGreaterThanOrEqual(FAILBACK_MS);
  expect(await pingFrom(mesh.namespace("pod-careful"), "172.16.3.0")).toMatchObject({ received: 5 });
});

test("near endpoints serve first, far ones while there is none", async () => {
  for (const [node, endpoint] of [
    ["node1", "left"],
    ["node2", "right"],
  ] as const) {
    mesh.start(`on-${node}`);
    for (const device of ["nsm-1", "nsm-2", "nsm-3"])
      expect(await mesh.established(`on-${node}`, device)).toMatchObject({ nse: endpoint });
  }
  await moved("on-node2", "left", () => mesh.daemon("right").kill());
});
