/** Clients that wait for somebody to serve, and the manager's word that somebody does. */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { State } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import type { CallContext } from "../sdk/chain.ts";
import { wishOf } from "../sdk/elements/wishes.ts";
import { NsmError } from "../sdk/errors.ts";
import { silentLogger } from "../sdk/log.ts";
import type { KnownService } from "../sdk/registry/view.ts";
import { callBy, createRecorder, requestOn } from "../test/support/chain.ts";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { makePeer } from "../test/support/peer.ts";
import { createLocalEndpoints } from "./local-endpoints.ts";
import { wakeWaiting } from "./wake-waiting.ts";
import { createWaiting } from "./waiting.ts";

const PEER = await makePeer("/client");
const NOBODY = new NsmError("NOT_FOUND", "no-candidates", "nobody serves");

/** A manager whose registry and forwarders a test plays; there is a forwarder unless told. */
function build(forwarder = "forwarder-1") {
  const clock = createFakeClock();
  const local = createLocalEndpoints(clock);
  const known = new Map<string, KnownService>();
  const listeners = new Map<string, () => void>();
  const whispered: { news: Connection; owner: string }[] = [];
  const waiting = createWaiting({
    view: {
      follow(service, onChange) {
        listeners.set(service, onChange);
        return { known: () => known.get(service), [Symbol.dispose]: () => void listeners.delete(service) };
      },
    },
    local,
    forwarderService: "forwarder",
    store: { whisper: (news, owner) => void whispered.push({ news, owner }) },
    clock,
    log: silentLogger,
  });
  const recorder = createRecorder<CallContext>();
  const manager = wakeWaiting(waiting)(recorder);
  const registerForwarder = (name: string) =>
    local.set({
      entry: create(NetworkServiceEndpointSchema, {
        name,
        networkServiceNames: ["forwarder"],
        networkServiceLabels: { forwarder: { labels: { p2p: "true" } } },
      }),
      url: `unix:///${name}`,
      path: { index: 0, tokens: [] },
      isAlive: () => true,
      dispose: () => undefined,
    });
  if (forwarder !== "") registerForwarder(forwarder);
  recorder.answer = () => Promise.reject(NOBODY);
  const ask = (id = "client-0", labels: Record<string, string> = {}, service = "service", peer = PEER) => {
    const request = requestOn(["client", "nsmgr"], [id, `m-${id}`]);
    if (request.connection !== undefined)
      Object.assign(request.connection, { labels, networkService: service });
    return manager.request(request, callBy(peer));
  };
  return {
    clock,
    local,
    waiting,
    manager,
    recorder,
    whispered,
    registerForwarder,
    following: () => [...listeners.keys()],
    ask,
    /** Asks in vain. */
    fail: async (...args: Parameters<typeof ask>) => {
      await expect(ask(...args)).rejects.toThrow("nobody serves");
    },
    /** Whom the clients were told about, by their own ids. */
    told: () => whispered.map(({ news }) => news.path?.pathSegments[0]?.id),
    /** The registry tells what it has: `name`, `name@time of its registration` or `name@time@away`; their label `app` is the name. */
    tell: async (endpoints: readonly string[], service = "service", wants?: string) => {
      known.set(service, {
        service: create(NetworkServiceSchema, {
          name: service,
          ...(wants !== undefined && { matches: [{ routes: [{ destinationSelector: { app: wants } }] }] }),
        }),
        endpoints: endpoints.map((text) => {
          const [name = "", time = "0", away] = text.split("@");
          return create(NetworkServiceEndpointSchema, {
            name,
            networkServiceNames: [service],
            networkServiceLabels: {
              [service]: { labels: { app: name, ...(away !== undefined && { "nsm.io/away": "true" }) } },
            },
            initialRegistrationTime: timestampFromMs(Number(time)),
          });
        }),
      });
      listeners.get(service)?.();
      await clock.advance(0);
    },
  };
}

test("an endpoint that goes and comes back as it was is news, and one whose domain is away is nobody", async () => {
  const { fail, tell, told, clock } = build();
  await tell(["web"]);
  await fail();
  await clock.advance(100);
  const before = told().length;
  await tell(["web@0@away"]);
  await clock.advance(100);
  expect(told()).toHaveLength(before);
  await tell(["web"]);
  await clock.advance(100);
  expect(told()).toHaveLength(before + 1);
});

test("who asked in vain is told once when somebody registers who would serve, in words that others do not know", async () => {
  const { fail, tell, told, whispered } = build();
  await fail();
  await tell([]);
  expect(told()).toEqual([]);
  await tell(["a"]);
  await tell(["a"]);
  expect(told()).toEqual(["client-0"]);
  const [{ news, owner } = { news: undefined, owner: "" }] = whispered;
  expect(owner).toBe(PEER.spiffeId);
  expect(news).toMatchObject({ id: "m-client-0", state: State.RESELECT_REQUESTED, path: { index: 1 } });
  expect(news && wishOf(news)).toBe("retry");
});

test("those who were registered while it asked are no news, those who come back are", async () => {
  const { fail, tell, told } = build();
  await fail();
  await tell(["a@1"]);
  await fail();
  await tell(["a@1"]);
  expect(told()).toHaveLength(1);
  await tell(["a@2"]);
  expect(told()).toHaveLength(2);
});

test("who registers while the Request is on its way is told of as soon as that has failed", async () => {
  const { ask, fail, tell, told, recorder } = build();
  await fail();
  recorder.answer = async () => {
    await tell(["a"]);
    expect(told()).toHaveLength(1);
    throw NOBODY;
  };
  await expect(ask()).rejects.toThrow("nobody serves");
  expect(told()).toHaveLength(1);
  recorder.answer = () => Promise.reject(NOBODY);
  await fail("another");
  expect(told()).toEqual(["client-0", "another"]);
});

test("endpoints that the matches do not lead to are no news", async () => {
  const { fail, tell, told } = build();
  await fail();
  await tell(["a"], "service", "b");
  expect(told()).toEqual([]);
  await tell(["a", "b"], "service", "b");
  expect(told()).toEqual(["client-0"]);
});

test("a forwarder that registers is news, and without one nobody is told of endpoints", async () => {
  const { fail, tell, told, registerForwarder, clock } = build("");
  await fail();
  await tell(["a"]);
  expect(told()).toEqual([]);
  registerForwarder("forwarder-1");
  await clock.advance(0);
  expect(told()).toEqual(["client-0"]);
  registerForwarder("forwarder-1");
  await clock.advance(0);
  expect(told()).toHaveLength(1);
});

test("who was answered, has closed, or has not asked for a minute waits no longer, and nothing is followed for it", async () => {
  const { ask, fail, tell, told, manager, recorder, clock, following } = build();
  await fail("answered");
  await fail("closed");
  await fail("gone");
  expect(following()).toEqual(["service"]);
  recorder.answer = ({ connection }) => Promise.resolve(connection);
  await ask("answered");
  const { connection } = requestOn(["client", "nsmgr"], ["closed", "m-closed"]);
  if (connection !== undefined) await manager.close(connection, callBy(PEER));
  await clock.advance(60_000);
  expect(following()).toEqual([]);
  await tell(["a"]);
  expect(told()).toEqual([]);
  expect(clock.armed).toBe(0);
});

test.each(["INVALID_ARGUMENT", "PERMISSION_DENIED", "ABORTED"] as const)(
  "a failure that nobody who registers would mend (%s) is not waited upon",
  async (code) => {
    const { ask, recorder, following } = build();
    recorder.answer = () => Promise.reject(new NsmError(code, "test", "no"));
    await expect(ask()).rejects.toMatchObject({ code });
    expect(following()).toEqual([]);
  },
);

test("one client has eight services followed at most, and takes no room from others", async () => {
  const { fail, following } = build();
  for (let i = 0; i < 20; i++) await fail(`client-${i}`, {}, `nonsense-${i}`);
  expect(following()).toHaveLength(8);
  await fail("other-0", {}, "service", await makePeer("/other"));
  expect(following()).toContain("service");
});

test("many who wait are told one after the other", async () => {
  const { fail, tell, told, clock, waiting } = build();
  for (let i = 0; i < 50; i++) await fail(`client-${i}`);
  await tell(["a"]);
  expect(told()).toHaveLength(1);
  await clock.advance(100);
  expect(told().length).toBeLessThan(50);
  await clock.advance(1000);
  expect(told()).toHaveLength(50);
  waiting[Symbol.dispose]();
  expect(clock.armed).toBe(0);
});
