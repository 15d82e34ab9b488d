/**
 * T39: what two domains say to one another arrives late, again, or after what was said later, as when sessions break and are made anew.
 * Real chains in one process; the order is drawn from a seed. Afterwards there is one wire or none, at every hop.
 */
import { expect, onTestFinished, test } from "vitest";
import type { Connection } from "../../../api/gen/connection_pb.js";
import { delay } from "../../../sdk/clock.ts";
import { makeAuthority } from "../../support/certificates.ts";
import { joinDomains } from "../../support/in-process-domains.ts";
import { hopsIn } from "../../support/in-process.ts";
import { eventually } from "../../support/netns.ts";
import { createStations } from "../../support/stations.ts";
import type { Sent } from "../../support/stations.ts";
import { shortOrLong } from "../../support/long.ts";
import { seeded } from "../../support/steps.ts";
import { chosenAnew } from "./mesh.ts";

const SEEDS = shortOrLong(5, 50);
/** What a message takes between the domains, at most: each is longer than all hops of a domain together. */
const LATE_MS = 8;
/** Within a domain. */
const HOP_MS = 2;
/** At each place. */
const [NONE, ONE] = [Array<number>(9).fill(0), Array<number>(9).fill(1)];
const [EAST, WEST] = ["nsmgr-proxy-east", "nsmgr-proxy-west"];

/** `between`: resolves when a message that is sent now arrives in the other domain. */
async function start(between: () => Promise<void> = () => Promise.resolve()) {
  const sent: Sent[] = [];
  let onSent: (each: Sent) => void = () => undefined;
  const stations = createStations(
    await makeAuthority("example.org"),
    async (from, to) => {
      await (isBetween(from, to) ? between() : delay(HOP_MS));
    },
    (each) => {
      if (!isBetween(each.from, each.to)) return;
      sent.push(each);
      onSent(each);
    },
  );
  const { domains, ...started } = await joinDomains(["east", "west"], stations);
  onTestFinished(() => started[Symbol.asyncDispose]());
  const { east, west } = domains;
  await west.service({ name: "service", payload: "IP" });
  const here = await east.node("one");
  const there = await west.node("two");
  const forwarders = [await here.forwarder("f1"), await there.forwarder("f2")];
  const endpoints = [
    await there.endpoint({ name: "nse-1", service: "service", prefixes: "172.16.1.0/30" }),
    await there.endpoint({ name: "nse-2", service: "service", prefixes: "172.16.2.0/30" }),
  ];
  const client = await here.client("nsc");
  const places = [
    ...[here, there].map(
      ({ manager }) =>
        () =>
          manager.store.ids().size,
    ),
    ...[east, west].map(
      ({ proxied }) =>
        () =>
          proxied().size,
    ),
    ...forwarders.flatMap(({ store, dataplane }) => [() => store.ids().size, () => dataplane.present.size]),
    () => endpoints.reduce((sum, { store }) => sum + store.ids().size, 0),
  ];
  const counts = () => places.map((count) => count());
  /** How many wires there are at managers, proxies, forwarders, in their kernels, and at the endpoints, when nothing changes any more. */
  const wires = async (expected: number) => {
    const isSo = () => counts().every((count) => count === expected);
    await eventually("as many wires as expected", isSo).catch(() => undefined);
    return counts();
  };
  return {
    east,
    here,
    client,
    sent,
    endpoints,
    wires,
    /** What happens to each message beside its usual delivery. */
    disturb: (with_: (each: Sent) => void) => {
      onSent = with_;
    },
  };
}

function isBetween(from: string, to: string): boolean {
  return (from === EAST && to === WEST) || (from === WEST && to === EAST);
}

/** Which endpoint serves it, by name and by who has it. */
const served = (connection: Connection) => [connection.networkServiceEndpointName, hopsIn(connection).at(-1)];

test("each message arrives twice: one wire, which is refreshed, moved and closed as if it had been once", async () => {
  const { client, disturb, wires } = await start();
  const again: Promise<void>[] = [];
  disturb((each) => again.push(each.again(0)));
  for (let round = 0; round < 5; round++) {
    const first = await client.connect("service@west", { id: `wire-${round}` });
    expect(await wires(1)).toEqual(ONE);
    const refreshed = await client.refresh(first);
    expect(served(refreshed)).toEqual(served(first));
    const moved = await client.request(chosenAnew(refreshed));
    expect(await wires(1)).toEqual(ONE);
    await client.close(moved);
    await Promise.all(again);
    expect(await wires(0)).toEqual(NONE);
  }
});

test("a Request that arrives after a newer one changes nothing: the newest stays", async () => {
  const { client, sent, wires, endpoints } = await start();
  const first = await client.connect("service@west");
  const refreshed = await client.refresh(first);
  const stale = sent.filter(({ kind }) => kind === "request");
  expect(stale.length).toBeGreaterThanOrEqual(2);
  const moved = await client.request(chosenAnew(refreshed));
  expect(served(moved)).not.toEqual(served(first));
  for (const each of stale) await each.again(0);
  expect(await wires(1)).toEqual(ONE);
  const now = await client.refresh(moved);
  expect(served(now)).toEqual(served(moved));
  expect(endpoints.map(({ store }) => store.ids().size)).toEqual(
    endpoints.map(({ name }) => (moved.networkServiceEndpointName === `${name}@west` ? 1 : 0)),
  );
  await client.close(now);
  expect(await wires(0)).toEqual(NONE);
});

test("what arrives after a Close, Requests and Closes, brings no wire back", async () => {
  const { client, sent, wires } = await start();
  const first = await client.connect("service@west");
  const moved = await client.request(chosenAnew(await client.refresh(first)));
  await client.close(moved);
  expect(await wires(0)).toEqual(NONE);
  for (const each of sent.slice()) {
    await each.again(0);
    expect(await wires(0)).toEqual(NONE);
  }
  // And takes nothing of the next one.
  const next = await client.connect("service@west");
  for (const each of sent.filter(({ kind }) => kind === "close")) await each.again(0);
  expect(await wires(1)).toEqual(ONE);
  await client.close(next);
  expect(await wires(0)).toEqual(NONE);
});

test("answers that arrive after the client has asked again do not count", async () => {
  let lateMs = 0;
  const { client, wires } = await start(() => delay(lateMs));
  const first = await client.connect("service@west");
  lateMs = 50;
  const givenUp = new AbortController();
  const old = client.refresh(first, givenUp.signal).catch((error: unknown) => error);
  await delay(75); // its answer is on the way
  givenUp.abort();
  lateMs = 0;
  const moved = await client.request(chosenAnew(first));
  expect(await old).toBeInstanceOf(Error);
  await delay(100);
  expect(await wires(1)).toEqual(ONE);
  expect(served(await client.refresh(moved))).toEqual(served(moved));
  await client.close(moved);
  expect(await wires(0)).toEqual(NONE);
});

test(
  "late, doubled and out of order at random: one wire for each client that has one, and none when they have ended",
  async () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const random = seeded(seed);
      const upTo = (most: number) => Math.floor(most * random());
      const { client, disturb, wires } = await start(() => delay(upTo(LATE_MS)));
      const again: Promise<void>[] = [];
      disturb((each) => {
        if (random() < 0.5) again.push(delay(upTo(10 * LATE_MS)).then(() => each.again(0)));
      });
      let wire = await client.connect("service@west");
      for (let step = 0; step < 4; step++) {
        const signal = AbortSignal.timeout(LATE_MS + upTo(6 * LATE_MS));
        const asked =
          random() < 0.5 ? client.refresh(wire, signal) : client.request(chosenAnew(wire), signal);
        wire = await asked.catch(() => wire);
      }
      wire = await client.refresh(wire);
      await Promise.all(again);
      expect(await wires(1)).toEqual(ONE);
      wire = await client.refresh(wire);
      await client.close(wire);
      await Promise.all(again);
      expect(await wires(0)).toEqual(NONE);
    }
  },
  shortOrLong(60_000, 600_000),
);

test("while the other domain is silent, Requests for what is here are served, and nobody there is asked for them", async () => {
  const back = Promise.withResolvers<undefined>();
  let isSilent = false;
  const { east, here, client, sent } = await start(async () => {
    if (isSilent) await back.promise;
  });
  await east.service({ name: "near", payload: "IP" });
  const near = await here.endpoint({ name: "nse-near", service: "near", prefixes: "172.16.3.0/24" });
  const other = await here.client("nsc-2");
  const wire = await client.connect("service@west");
  isSilent = true;
  const leaving = new AbortController();
  const hanging = client.refresh(wire, leaving.signal).catch((error: unknown) => error);
  await eventually("the Request for the other domain is on its way", () => sent.length === 2);
  for (let i = 0; i < 5; i++) await other.close(await other.connect("near"));
  expect(near.counts).toMatchObject({ requests: 5, closes: 5 });
  expect(sent).toHaveLength(2);
  leaving.abort();
  expect(await hanging).toBeInstanceOf(Error);
  back.resolve(undefined);
  isSilent = false;
});
