/**
 * Requests that are given up at every step: afterwards the wire is there at every hop, or nothing of it anywhere. Real chains in one
 * process, whose messages arrive in an order drawn from a seed; the clock stands still.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import type { Connection } from "../../../api/gen/connection_pb.js";
import { NsmError } from "../../../sdk/errors.ts";
import { startInProcess } from "../../support/in-process.ts";
import type { ForwarderHandle, InProcessMesh, NodeHandle } from "../../support/in-process.ts";
import type { ClientHandle, EndpointHandle } from "../../support/in-process-parts.ts";
import { createSteps, seeded } from "../../support/steps.ts";
import type { Steps } from "../../support/steps.ts";
import { chosenAnew } from "./mesh.ts";

/** Schedules a run; each has some Requests. */
const SCHEDULES = 80;
/** Of watches and delays that come and go; one left behind by each wire would soon be more. */
const OTHER_TIMERS = 10;
/** More messages than any Request takes. */
const STEPS = 120;

let random: () => number;
let steps: Steps;
let mesh: InProcessMesh;
let nodes: readonly NodeHandle[];
let forwarders: ForwarderHandle[];
let endpoints: EndpointHandle[];
let client: ClientHandle;
let timers: number;

beforeAll(async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date", "performance"] });
  random = seeded(1);
  steps = createSteps(() => random());
  mesh = await startInProcess({ transit: steps.transit });
  await mesh.service({ name: "service", payload: "IP" });
  const [one, two] = [await mesh.node("one"), await mesh.node("two")];
  nodes = [one, two];
  forwarders = [await one.forwarder("f1"), await one.forwarder("f2"), await two.forwarder("f3")];
  for (const { name, dataplane } of forwarders) dataplane.busy = () => steps.transit(name, "kernel");
  endpoints = [
    await one.endpoint({ name: "near", service: "service", prefixes: "172.16.1.0/29" }),
    await two.endpoint({ name: "far", service: "service", prefixes: "172.16.2.0/29" }),
    await two.endpoint({ name: "farther", service: "service", prefixes: "172.16.3.0/29" }),
  ];
  client = await one.client("nsc");
});
afterAll(async () => {
  vi.useRealTimers();
  await mesh[Symbol.asyncDispose]();
});
beforeEach(async () => {
  await finish(client.close(await finish(client.connect("service", { id: "warm-up" }))));
  timers = vi.getTimerCount();
});
afterEach(() => setFaults(() => false));

/** What each hop has. */
const left = () =>
  Object.fromEntries(
    [
      ...nodes.map(({ name, manager }) => [name, [...manager.store.ids()]] as const),
      ...forwarders.map(({ name, store }) => [name, [...store.ids()]] as const),
      ...forwarders.map(({ name, dataplane }) => [`${name}'s kernel`, [...dataplane.present]] as const),
      ...endpoints.map(({ name, store }) => [name, [...store.ids()]] as const),
    ].filter(([, ids]) => ids.length > 0),
  );
const expectNothingLeft = (seed: number) => {
  expect(left(), `seed ${seed}`).toEqual({});
  expect(vi.getTimerCount(), `timers of seed ${seed}`).toBeLessThan(timers + OTHER_TIMERS);
};
/** The path's ids, and no others. */
const expectEverywhere = (connection: Connection, seed: number) => {
  const wanted: Record<string, string[]> = {};
  for (const { name, id } of connection.path?.pathSegments.slice(1) ?? []) {
    wanted[name.replace("nsmgr-", "")] = [id];
    if (forwarders.some((each) => each.name === name)) wanted[`${name}'s kernel`] = [id];
  }
  expect(left(), `seed ${seed}`).toEqual(wanted);
};

/** Each forwarder and endpoint fails if `fails` says so. */
const setFaults = (fails: () => boolean) => {
  const fault = () => new NsmError("INTERNAL", "broken", "told to fail");
  for (const { dataplane } of forwarders) dataplane.failure = fails() ? fault() : undefined;
  for (const endpoint of endpoints) {
    const isBroken = fails();
    endpoint.refuse(() => (isBroken ? fault() : undefined));
  }
};

const reselect = (connection: Connection, signal?: AbortSignal) =>
  client.request(chosenAnew(connection), signal);

type Ask = (signal: AbortSignal) => Promise<Connection>;

/** The answer, unless it was given up after so many messages, or failed. */
const give = async (ask: Ask, messages: number): Promise<Connection | undefined> => {
  const giveUp = new AbortController();
  const outcome: { isOver: boolean; answer?: Connection } = { isOver: false };
  void ask(giveUp.signal)
    .then((answer) => (outcome.answer = answer))
    .catch(() => undefined)
    .finally(() => (outcome.isOver = true));
  for (let i = 0; i < messages && !outcome.isOver; i++) if (!(await steps.step())) break;
  giveUp.abort(new NsmError("CANCELLED", "left", "the test has left"));
  await new Promise((resolve) => setImmediate(resolve));
  return outcome.answer;
};
const finish = async <T>(promise: Promise<T>): Promise<T> => {
  const settled = promise.then(
    () => undefined,
    () => undefined,
  );
  await steps.drain();
  await settled;
  return await promise;
};

const KINDS = ["refresh", "reselect"] as const;
const asked = (
  kind: "first" | (typeof KINDS)[number],
  connection: Connection | undefined,
  id: string,
): Ask =>
  connection === undefined || kind === "first"
    ? (signal) => client.connect("service", { id, signal })
    : (signal) => (kind === "refresh" ? client.refresh(connection, signal) : reselect(connection, signal));

describe("a Request that is given up after any message", () => {
  test.each(["first", ...KINDS] as const)(
    "%s: what it made is closed with the wire, or stays with it",
    async (kind) => {
      let isOver = false;
      for (let at = 0; !isOver; at++) {
        expect(at).toBeLessThan(STEPS);
        random = seeded(at);
        const id = `${kind}-${at}`;
        const wire = kind === "first" ? undefined : await finish(client.connect("service", { id }));
        const answer = await give(asked(kind, wire, id), at);
        isOver = answer !== undefined;
        await steps.drain();
        const kept = answer ?? wire;
        if (kept === undefined) {
          expectNothingLeft(at);
          continue;
        }
        const healed = await finish(reselect(kept));
        expectEverywhere(healed, at);
        await finish(client.close(healed));
        expectNothingLeft(at);
      }
    },
  );

  test(`of ${SCHEDULES} random schedules`, async () => {
    expect(left()).toEqual({});
    for (let seed = 1; seed <= SCHEDULES; seed++) {
      random = seeded(seed);
      const id = `random-${seed}`;
      let wire: Connection | undefined;
      for (let asks = 1 + Math.floor(random() * 4); asks > 0; asks--) {
        setFaults(() => random() < 0.15);
        const kind = KINDS[Math.floor(random() * KINDS.length)] ?? "refresh";
        wire = (await give(asked(kind, wire, id), Math.floor(random() * STEPS * 0.6))) ?? wire;
        if (random() < 0.7) await steps.drain();
      }
      setFaults(() => false);
      if (wire !== undefined && random() < 0.5) {
        wire = await finish(reselect(wire));
        expectEverywhere(wire, seed);
      }
      if (wire !== undefined) await finish(client.close(wire));
      await steps.drain();
      expectNothingLeft(seed);
    }
  });
});
