import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { State } from "../../api/gen/connection_pb.js";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import type { MatchSchema, NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import type { CallContext } from "../chain.ts";
import type { WithNextHop } from "./target.ts";
import { parseRefusedAddresses } from "../endpoint-url.ts";
import { NsmError } from "../errors.ts";
import { silentLogger } from "../log.ts";
import { callBy, connectionOn, createRecorder, requestOn } from "../../test/support/chain.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { makePeer } from "../../test/support/peer.ts";
import { selectEndpoint } from "./select-endpoint.ts";

const call = callBy(await makePeer("/nsmgr/node1"));
const MANAGER = { ...call, byForwarder: false };
/** Another forwarder asks, for the other end of a tunnel. */
const OTHER_NODE = { ...call, byForwarder: true };

const endpoint = (name: string, url = `unix:///proc/1/root/${name}`, labels = {}) =>
  create(NetworkServiceEndpointSchema, {
    name,
    url,
    networkServiceNames: ["service"],
    networkServiceLabels: { service: { labels } },
    pathIds: [`spiffe://example.org/nse/${name}`],
  });

interface Known {
  /** Of the service that everybody asks for; null: there is none. */
  readonly matches?: readonly MessageInitShape<typeof MatchSchema>[] | null;
  /** Wires that the kernel holds since an earlier life of the forwarder. */
  readonly held?: readonly string[];
}

function build(endpoints: NetworkServiceEndpoint[], { matches = [], held = [] }: Known = {}) {
  const asked: string[] = [];
  const view = {
    service(name: string) {
      asked.push(`service ${name}`);
      if (matches === null) return Promise.resolve(undefined);
      return Promise.resolve(create(NetworkServiceSchema, { name, payload: "IP", matches: [...matches] }));
    },
    endpointsOf: () => Promise.resolve(endpoints),
    endpoint(name: string) {
      asked.push(`endpoint ${name}`);
      return Promise.resolve(endpoints.find((each) => each.name === name));
    },
    [Symbol.dispose]: () => undefined,
  };
  const recorder = createRecorder<CallContext & WithNextHop>();
  const hops: string[] = [];
  const original = recorder.answer;
  recorder.answer = (call, ctx) => {
    hops.push(ctx.nextHop.url);
    return original(call, ctx);
  };
  const isManager = (id: string) => id.startsWith("spiffe://example.org/nsmgr/");
  const refusedAddresses = parseRefusedAddresses("127.0.0.0/8");
  const holdsWire = (id: string) => held.includes(id);
  const clock = createFakeClock();
  const options = {
    view,
    clock,
    log: silentLogger,
    isManager,
    isProxy: (id: string) => id.startsWith("spiffe://example.org/nsmgr-proxy/"),
    holdsWire,
    refusedAddresses,
  };
  const isChosen = ({ byForwarder }: { readonly byForwarder: boolean }) => byForwarder;
  const service = selectEndpoint({ ...options, isChosen })(recorder);
  const failing = (...names: string[]) => {
    recorder.answer = (call, ctx) => {
      hops.push(ctx.nextHop.url);
      const name = call.connection.networkServiceEndpointName;
      return names.includes(name)
        ? Promise.reject(new NsmError("UNAVAILABLE", "unreachable", `${name} is away`))
        : original(call, ctx);
    };
  };
  return { asked, clock, hops, recorder, service, failing };
}

const request = () => requestOn(["manager", "forwarder"]);

function naming(name: string) {
  const named = request();
  if (named.connection !== undefined) named.connection.networkServiceEndpointName = name;
  return named;
}

describe("a first request", () => {
  test("names the endpoint and the payload of the service", async () => {
    const { service } = build([endpoint("a")]);
    expect(await service.request(request(), MANAGER)).toMatchObject({
      networkServiceEndpointName: "a",
      payload: "IP",
    });
  });

  test("takes turns", async () => {
    const { service, hops } = build([endpoint("a"), endpoint("b")]);
    await service.request(requestOn(["m", "f"], ["1", "1"]), MANAGER);
    await service.request(requestOn(["m", "f"], ["2", "2"]), MANAGER);
    expect(hops.map((url) => url.at(-1))).toEqual(["a", "b"]);
  });

  test("tries the next endpoint when one fails", async () => {
    const { service, failing, recorder } = build([endpoint("a"), endpoint("b")]);
    failing("a");
    expect((await service.request(request(), MANAGER)).networkServiceEndpointName).toBe("b");
    expect(recorder.calls).toHaveLength(2);
  });

  test("does not wait for an endpoint that hangs while there are others, and only then", async () => {
    const { service, clock, recorder, hops } = build([endpoint("a"), endpoint("b")]);
    const answer = recorder.answer;
    const hangsAt = (name: string): typeof answer => {
      return (call, ctx) =>
        call.connection.networkServiceEndpointName !== name
          ? answer(call, ctx)
          : new Promise((_, reject) => {
              hops.push(ctx.nextHop.url);
              ctx.signal.addEventListener("abort", () => reject(new Error("aborted")), { once: true });
            });
    };
    recorder.answer = hangsAt("a");
    const asking = service.request(request(), MANAGER);
    await clock.advance(4000);
    expect((await asking).networkServiceEndpointName).toBe("b");
    expect(clock.armed).toBe(0);
    const alone = build([endpoint("a")]);
    alone.recorder.answer = hangsAt("a");
    let isOver = false;
    void alone.service.request(request(), MANAGER).finally(() => (isOver = true));
    await alone.clock.advance(60_000);
    expect(isOver).toBe(false);
  });

  test("says of each endpoint why it failed when all do", async () => {
    const { service, failing } = build([endpoint("a"), endpoint("b")]);
    failing("a", "b");
    await expect(service.request(request(), MANAGER)).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringMatching(/a is away.*b is away/),
    });
  });

  test("does not bother others with what they could not mend", async () => {
    const { service, recorder } = build([endpoint("a"), endpoint("b")]);
    recorder.answer = () =>
      Promise.reject(new NsmError("ALREADY_EXISTS", "interface-name-taken", "nsm-1 is taken"));
    await expect(service.request(request(), MANAGER)).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
    expect(recorder.calls).toHaveLength(1);
  });
});

describe("an endpoint that the client names", () => {
  const leadsTo = (app: string) => [{ routes: [{ destinationSelector: { app } }] }];
  const endpoints = ["a", "b"].map((name) => endpoint(name, undefined, { app: name }));

  test("is taken when the service leads there", async () => {
    const { service } = build(endpoints, { matches: leadsTo("b") });
    expect((await service.request(naming("b"), MANAGER)).networkServiceEndpointName).toBe("b");
  });

  test("is refused when the service leads elsewhere, and nobody is asked", async () => {
    const { service, recorder } = build(endpoints, { matches: leadsTo("a") });
    await expect(service.request(naming("b"), MANAGER)).rejects.toMatchObject({
      code: "NOT_FOUND",
      reason: "endpoint-mismatch",
      message: expect.stringMatching(/"service".*"b"/),
    });
    expect(recorder.calls).toEqual([]);
  });

  test.for([
    ["leads nowhere", leadsTo("nobody"), "no-candidates"],
    ["is gone", null, "service-not-found"],
  ] as const)("is refused when the service %s, unless the wire is there", async ([, matches, reason]) => {
    const asNew = build(endpoints, { matches });
    await expect(asNew.service.request(naming("b"), MANAGER)).rejects.toMatchObject({ reason });
    const held = build(endpoints, { matches, held: ["forwarder"] });
    expect((await held.service.request(naming("b"), MANAGER)).networkServiceEndpointName).toBe("b");
  });

  test("is refused although the wire is there when the service leads elsewhere", async () => {
    const { service } = build(endpoints, { matches: leadsTo("a"), held: ["forwarder"] });
    await expect(service.request(naming("b"), MANAGER)).rejects.toMatchObject({
      reason: "endpoint-mismatch",
    });
  });

  test("is refused when it offers another service", async () => {
    const other = endpoint("other");
    other.networkServiceNames = ["another"];
    const { service } = build([...endpoints, other]);
    await expect(service.request(naming("other"), MANAGER)).rejects.toMatchObject({
      reason: "endpoint-mismatch",
    });
  });
});

describe("later", () => {
  test("a refresh goes to the same endpoint and asks nobody", async () => {
    const { service, asked, hops } = build([endpoint("a"), endpoint("b")]);
    await service.request(request(), MANAGER);
    const before = asked.length;
    await service.request(request(), MANAGER);
    expect(new Set(hops).size).toBe(1);
    expect(asked).toHaveLength(before);
  });

  test("a refresh of the only endpoint that fails is not sent elsewhere", async () => {
    const { service, failing, recorder } = build([endpoint("a"), endpoint("b")]);
    await service.request(request(), MANAGER);
    failing("a");
    await expect(service.request(request(), MANAGER)).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(recorder.calls).toHaveLength(2);
  });

  test("a reselect chooses anew", async () => {
    const { service, hops } = build([endpoint("a"), endpoint("b")]);
    await service.request(request(), MANAGER);
    const again = request();
    if (again.connection !== undefined) again.connection.state = State.RESELECT_REQUESTED;
    await service.request(again, MANAGER);
    expect(hops.map((url) => url.at(-1))).toEqual(["a", "b"]);
  });

  test("a reselect tries the endpoint that it leaves after all others", async () => {
    const { service, hops, failing } = build([endpoint("a"), endpoint("b"), endpoint("c")]);
    await service.request(request(), MANAGER);
    failing("b", "c");
    const again = request();
    if (again.connection !== undefined) again.connection.state = State.RESELECT_REQUESTED;
    await service.request(again, MANAGER);
    expect(hops.map((url) => url.at(-1))).toEqual(["a", "c", "b", "a"]);
  });

  test("what another forwarder has chosen is looked up by name alone", async () => {
    const { service, asked } = build([endpoint("a"), endpoint("b")], { matches: null });
    expect((await service.request(naming("b"), OTHER_NODE)).networkServiceEndpointName).toBe("b");
    expect(asked).toEqual(["endpoint b"]);
  });

  test("close goes where the request went, and after a restart to the endpoint by its name", async () => {
    const { service, hops } = build([endpoint("a"), endpoint("b")]);
    await service.request(request(), MANAGER);
    await service.close(connectionOn(["manager", "forwarder"]), MANAGER);
    const unknown = connectionOn(["manager", "forwarder"], ["x", "y"]);
    unknown.networkServiceEndpointName = "b";
    await service.close(unknown, MANAGER);
    expect(hops.map((url) => url.at(-1))).toEqual(["a", "a", "b"]);
  });
});

test("an endpoint that leads where nobody is dialled is passed over", async () => {
  const bad = [endpoint("loop", "tcp://127.0.0.1:5001"), endpoint("text", "tcp://localhost:5001")];
  const { service, hops } = build([...bad, endpoint("far", "tcp://192.0.2.2:5001")]);
  expect((await service.request(request(), MANAGER)).networkServiceEndpointName).toBe("far");
  expect(hops).toEqual(["tcp://192.0.2.2:5001"]);
  const alone = build(bad);
  await expect(alone.service.request(request(), MANAGER)).rejects.toMatchObject({
    code: "UNAVAILABLE",
    message: expect.stringMatching(/127\.0\.0\.1.*localhost/s),
  });
});

test("an endpoint of this node must be who registered it, one elsewhere is reached by a manager", async () => {
  const { service, recorder } = build([endpoint("a"), endpoint("far", "tcp://192.0.2.2:5001")]);
  const pins: boolean[][] = [];
  recorder.answer = (call, ctx) => {
    const ids = ["nse/a", "nse/far", "nsmgr/node2", "nsc/x"].map((id) => `spiffe://example.org/${id}`);
    pins.push(ids.map((id) => ctx.nextHop.expect?.(id) ?? true));
    return Promise.resolve(call.connection);
  };
  await service.request(requestOn(["m", "f"], ["1", "1"]), MANAGER);
  await service.request(requestOn(["m", "f"], ["2", "2"]), MANAGER);
  expect(pins).toEqual([
    [true, false, false, false],
    [false, true, true, false],
  ]);
});

describe("endpoints of a domain that does not answer", () => {
  const away = (name: string) => endpoint(name, "tcp://192.0.2.9:5004");
  const silentWest = ({ recorder }: ReturnType<typeof build>, isSilent: () => boolean) => {
    const { answer } = recorder;
    const tried: string[] = [];
    recorder.answer = (call, ctx) => {
      const { networkServiceEndpointName: name } = call.connection;
      tried.push(name);
      if (!name.endsWith("@west") || !isSilent()) return answer(call, ctx);
      return Promise.reject(new NsmError("UNAVAILABLE", "domain-silent", "west does not answer"));
    };
    return tried;
  };
  const ask = (service: ReturnType<typeof build>["service"], id: string) =>
    service.request(requestOn(["m", "f"], [id, id]), MANAGER);

  test("are not asked once one of them has said so, come last for ten seconds, and then first again", async () => {
    const built = build([away("a@west"), away("b@west"), away("c@south"), endpoint("here")], {
      matches: [{ routes: [{}] }],
    });
    const tried = silentWest(built, () => true);
    expect((await ask(built.service, "1")).networkServiceEndpointName).toBe("c@south");
    expect(tried).toEqual(["a@west", "c@south"]);
    for (const id of ["2", "3", "4", "5"]) await ask(built.service, id);
    expect(tried.filter((name) => name.endsWith("@west"))).toEqual(["a@west"]);
    await built.clock.advance(10_000);
    for (const id of ["6", "7", "8", "9"]) await ask(built.service, id);
    expect(tried.filter((name) => name.endsWith("@west")).length).toBeGreaterThan(1);
  });

  test("are asked when there is nobody else, and are as good as others when they answer", async () => {
    let isSilent = true;
    const built = build([away("a@west"), away("b@west")], { matches: [{ routes: [{}] }] });
    const tried = silentWest(built, () => isSilent);
    await expect(ask(built.service, "1")).rejects.toMatchObject({ reason: "domain-silent" });
    await expect(ask(built.service, "2")).rejects.toMatchObject({ reason: "domain-silent" });
    expect(tried).toHaveLength(2);
    isSilent = false;
    for (const id of ["3", "4", "5"]) await ask(built.service, id);
    expect(new Set(tried.slice(2))).toEqual(new Set(["a@west", "b@west"]));
  });
});
