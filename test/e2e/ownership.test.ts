/** Whose a connection is: what strangers try with the ids of others changes nothing, also while daemons have forgotten. */
import { isDeepStrictEqual } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import type { Connection } from "../../api/gen/connection_pb.js";
import { eventually } from "../support/netns.ts";
import { useMesh } from "../support/use-mesh.ts";
import { devicesIn, pingFrom } from "../support/wires.ts";
import { addressOf, refreshOf, segmentsOf, wishFor, withPath } from "../support/wishes.ts";
import { Refusal, copyOf } from "../support/workload.ts";
import type { Workload } from "../support/workload.ts";

const endpoints = [
  { name: "near", service: "near", prefixes: "172.16.1.0/24" },
  { name: "far", node: "node2", service: "far", prefixes: "172.16.2.0/24" },
] as const;

let victim: Workload;
let stranger: Workload;
/** The victim's wires, by service. */
const wires = new Map<string, Connection>();
const mesh = useMesh({
  endpoints,
  workloads: ["victim", "stranger", "twin"],
  pods: ["pod-victim", "pod-stranger", "pod-twin"],
});
beforeAll(async () => {
  victim = await mesh.workload("victim", "pod-victim");
  stranger = await mesh.workload("stranger", "pod-stranger");
  for (const [i, { service }] of endpoints.entries())
    wires.set(
      service,
      await victim.request(wishFor(victim, { service, id: `client-${i}`, interfaceName: `nsm-${i}` })),
    );
});

function wireTo(service: string): Connection {
  const wire = wires.get(service);
  if (wire === undefined) throw new Error(`the victim has no wire to ${service}`);
  return wire;
}

/** Every end of every wire; the stranger's must be none. */
function allDevices() {
  const pods = ["pod-victim", "pod-stranger", "pod-near", "pod-far"];
  return pods.map((pod) => [pod, devicesIn(mesh.namespace(pod))]);
}

async function victimPings(): Promise<number> {
  let received = 0;
  for (const wire of wires.values())
    received += (await pingFrom(mesh.namespace("pod-victim"), addressOf(wire, "dst"), 2)).received;
  return received;
}

/** What a stranger makes of the victim's connection. */
const forgeries: readonly { readonly what: string; readonly of: (wire: Connection) => Connection }[] = [
  { what: "the victim's whole answer", of: copyOf },
  {
    what: "the victim's answer, at the manager's own segment",
    of: (wire) => withPath(wire, segmentsOf(wire), 1),
  },
  {
    what: "its own segment before those of the victim",
    of: (wire) => withPath(wire, [{ name: "stranger", id: "stranger-0" }, ...segmentsOf(wire).slice(1)]),
  },
  {
    what: "own segments before those of the victim's forwarder and what follows",
    of: (wire) =>
      withPath(wire, [
        { name: "stranger", id: "stranger-0" },
        { name: "nsmgr-node1", id: crypto.randomUUID() },
        ...segmentsOf(wire).slice(2),
      ]),
  },
  {
    what: "the victim's first segment and forwarder, with a manager's segment in between of its own",
    of: (wire) => {
      const [first, manager, ...later] = segmentsOf(wire);
      if (first === undefined || manager === undefined) throw new Error("the path is too short");
      return withPath(wire, [first, { name: manager.name, id: crypto.randomUUID() }, ...later]);
    },
  },
];
const attempts = forgeries.flatMap(({ what, of }) => endpoints.map(({ service }) => ({ what, of, service })));

/** What the stranger's calls with a forged connection end with, and what is then left of the victim's wires. */
async function outcomeOf(forged: Connection) {
  const before = allDevices();
  const { mechanismPreferences } = wishFor(stranger, { service: "" });
  const forms = [forged, withoutMechanism(forged), asRemote(forged)];
  const codes: string[] = [];
  const codeOf = (call: Promise<unknown>) =>
    call.then(
      () => "done",
      (error: unknown) => (error instanceof Refusal ? error.code : String(error)),
    );
  for (const connection of forms)
    codes.push(await codeOf(stranger.request({ connection, mechanismPreferences })));
  for (const connection of forms) codes.push(await codeOf(stranger.close(connection)));
  return {
    codes: [...new Set(codes)],
    devices: isDeepStrictEqual(allDevices(), before) ? "as before" : allDevices(),
    pings: await victimPings(),
  };
}
const REFUSED = { codes: ["PERMISSION_DENIED"], devices: "as before", pings: 4 };

function withoutMechanism(connection: Connection): Connection {
  const copy = copyOf(connection);
  delete copy.mechanism;
  return copy;
}

function asRemote(connection: Connection): Connection {
  const copy = copyOf(connection);
  if (copy.mechanism !== undefined) copy.mechanism.cls = "REMOTE";
  return copy;
}

test("two clients of the same name and id have a wire each, and closing one leaves the other", async () => {
  await using twin = await mesh.workload("twin", "pod-twin");
  const first = wireTo("near");
  const second = await twin.request(wishFor(twin, { service: "near", interfaceName: "nsm-0" }));
  expect(second.id).toBe(first.id);
  expect(segmentsOf(second)[1]?.id).not.toBe(segmentsOf(first)[1]?.id);
  expect(await pingFrom(mesh.namespace("pod-twin"), addressOf(second, "dst"))).toMatchObject({ received: 5 });
  await twin.close(second);
  await eventually("the twin's device is gone", () => devicesIn(mesh.namespace("pod-twin")).length === 0);
  expect(await victimPings()).toBe(4);
});

describe("a stranger is refused and changes nothing", () => {
  test.for(attempts)("to $service with $what", async ({ of, service }) => {
    expect(await outcomeOf(of(wireTo(service)))).toEqual(REFUSED);
  });
});

describe.each(["nsmgr-node1", "forwarder-node1", "nsmgr-node1 forwarder-node1"])(
  "after a restart of %s a stranger is refused and changes nothing",
  (names) => {
    beforeAll(async () => {
      await mesh.restart(...names.split(" "));
      await eventually(
        "the forwarder is registered again",
        async () => (await stranger.findEndpoints({ name: "forwarder-node1" }).catch(() => [])).length > 0,
        20_000,
      );
      await eventually(
        "the endpoint is registered again",
        async () => (await stranger.findEndpoints({ name: "near" }).catch(() => [])).length > 0,
        20_000,
      );
    });

    test.for(attempts)("to $service with $what", async ({ of, service }) => {
      expect(await outcomeOf(of(wireTo(service)))).toEqual(REFUSED);
    });

    test("and the owner goes on with its wires", async () => {
      const before = allDevices();
      for (const [service, wire] of wires) {
        const answer = await victim.request(refreshOf(wire));
        expect(segmentsOf(answer).map(({ id }) => id)).toEqual(segmentsOf(wire).map(({ id }) => id));
        wires.set(service, answer);
      }
      expect(allDevices()).toEqual(before);
      expect(await victimPings()).toBe(4);
    });
  },
);
