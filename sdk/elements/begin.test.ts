import { describe, expect, test } from "vitest";
import { State } from "../../api/gen/connection_pb.js";
import { callBy, connectionOn, createGate, createRecorder, requestOn } from "../../test/support/chain.ts";
import type { Recorder } from "../../test/support/chain.ts";
import { makePeer } from "../../test/support/peer.ts";
import type { CallContext } from "../chain.ts";
import { NsmError, asNsmError } from "../errors.ts";
import { silentLogger } from "../log.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { authorize } from "./authorize.ts";
import { begin } from "./begin.ts";
import type { WithEvents } from "./begin.ts";

const ALICE = callBy(await makePeer("/alice"));
const MALLORY = callBy(await makePeer("/mallory"));

type Context = CallContext & WithEvents;

function build(options: { closeUnknown?: boolean } = {}) {
  const recorder: Recorder<Context> = createRecorder<Context>();
  const owner = (_: unknown, ctx: CallContext) => ctx.peer?.spiffeId ?? "";
  return {
    recorder,
    service: begin({ owner, log: silentLogger, clock: createFakeClock(), ...options })(recorder),
  };
}

const request = () => requestOn(["client", "me"]);
const connection = () => connectionOn(["client", "me"]);
const kinds = (recorder: Recorder<Context>) => recorder.calls.map(({ kind }) => kind);

describe("one operation at a time", () => {
  test("two requests of one id never overlap further on", async () => {
    const { recorder, service } = build();
    const gate = createGate();
    let running = 0;
    let most = 0;
    recorder.answer = async (call) => {
      most = Math.max(most, ++running);
      await gate.wait();
      running--;
      return call.connection;
    };
    const both = [service.request(request(), ALICE), service.request(request(), ALICE)];
    await gate.reached;
    gate.resolve();
    await Promise.all(both);
    expect(most).toBe(1);
    expect(recorder.calls).toHaveLength(2);
  });

  test("different ids run side by side", async () => {
    const { recorder, service } = build();
    const gate = createGate();
    recorder.answer = async (call) => {
      if (call.connection.id === "a") await gate.wait();
      return call.connection;
    };
    const slow = service.request(requestOn(["client", "me"], ["0", "a"]), ALICE);
    await service.request(requestOn(["client", "me"], ["0", "b"]), ALICE);
    gate.resolve();
    await slow;
    expect(recorder.calls).toHaveLength(2);
  });

  test("a ninth operation in the queue is refused and the others go on", async () => {
    const { recorder, service } = build();
    const gate = createGate();
    recorder.answer = async (call) => {
      await gate.wait();
      return call.connection;
    };
    const running = service.request(request(), ALICE);
    await gate.reached;
    const accepted = [running, ...Array.from({ length: 8 }, () => service.request(request(), ALICE))];
    await expect(service.request(request(), ALICE)).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED" });
    gate.resolve();
    await Promise.all(accepted);
    expect(recorder.calls).toHaveLength(9);
  });

  test("a caller that leaves while it waits never reaches the rest of the chain", async () => {
    const { recorder, service } = build();
    const gate = createGate();
    recorder.answer = async (call) => {
      await gate.wait();
      return call.connection;
    };
    const first = service.request(request(), ALICE);
    await gate.reached;
    const leaving = new AbortController();
    const second = service.request(request(), { ...ALICE, signal: leaving.signal });
    leaving.abort(new NsmError("CANCELLED", "caller-left", "left"));
    await expect(second).rejects.toMatchObject({ code: "CANCELLED" });
    gate.resolve();
    await first;
    expect(recorder.calls).toHaveLength(1);
  });
});

describe("close", () => {
  test("uses the last good answer, whatever the caller's message says", async () => {
    const { recorder, service } = build();
    recorder.answer = (call) => {
      call.connection.labels["answered"] = "yes";
      return Promise.resolve(call.connection);
    };
    await service.request(request(), ALICE);
    await service.close(connection(), ALICE);
    expect(recorder.calls[1]?.connection.labels).toEqual({ answered: "yes" });
  });

  test("reaches the rest of the chain once, however often it is sent", async () => {
    const { recorder, service } = build();
    await service.request(request(), ALICE);
    await Promise.all([service.close(connection(), ALICE), service.close(connection(), ALICE)]);
    await service.close(connection(), ALICE);
    expect(kinds(recorder)).toEqual(["request", "close"]);
  });

  test("of an unknown id is a silent success", async () => {
    const { recorder, service } = build();
    await service.close(connection(), ALICE);
    expect(recorder.calls).toEqual([]);
  });

  test("of an unknown id is passed on where that is asked for", async () => {
    const { recorder, service } = build({ closeUnknown: true });
    await service.close(connection(), ALICE);
    expect(kinds(recorder)).toEqual(["close"]);
  });

  test("of an id that nobody knows is a success even where our policies stop it", async () => {
    const { recorder } = build();
    const owner = () => "";
    const checked = authorize(createFakeClock())(recorder);
    const service = begin({ owner, log: silentLogger, clock: createFakeClock(), closeUnknown: true })(
      checked,
    );
    await service.close(connection(), ALICE);
    expect(kinds(recorder)).toEqual([]);
  });

  test("pre-empts a hanging request, and the requests queued before it", async () => {
    const { recorder, service } = build();
    const hanging = createGate();
    recorder.answer = (call, ctx) => {
      if (call.kind === "close") return Promise.resolve(call.connection);
      void hanging.wait();
      return new Promise((_, reject) => {
        const onAbort = () => reject(asNsmError(ctx.signal.reason, "INTERNAL", "test", "aborted"));
        ctx.signal.addEventListener("abort", onAbort, { once: true });
      });
    };
    const first = service.request(request(), ALICE);
    const queued = service.request(request(), ALICE);
    await hanging.reached;
    const outcomes = Promise.allSettled([first, queued]);
    await service.close(connection(), ALICE);
    for (const outcome of await outcomes)
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "ABORTED", reason: "closed" } });
    expect(kinds(recorder)).toEqual(["request"]);
  });

  test("a request that comes after the close makes a new connection", async () => {
    const { recorder, service } = build();
    await service.request(request(), ALICE);
    const gate = createGate();
    recorder.answer = async (call) => {
      if (call.kind === "close") await gate.wait();
      return call.connection;
    };
    const closing = service.close(connection(), ALICE);
    await gate.reached;
    const again = service.request(request(), ALICE);
    gate.resolve();
    await Promise.all([closing, again]);
    expect(kinds(recorder)).toEqual(["request", "close", "request"]);
  });

  test("goes on when its caller leaves", async () => {
    const { recorder, service } = build();
    await service.request(request(), ALICE);
    const leaving = new AbortController();
    recorder.answer = (call, ctx) => {
      leaving.abort();
      return ctx.signal.aborted ? Promise.reject(new Error("aborted")) : Promise.resolve(call.connection);
    };
    await service.close(connection(), { ...ALICE, signal: leaving.signal });
    expect(kinds(recorder)).toEqual(["request", "close"]);
  });

  test("drops the state even when the rest of the chain fails", async () => {
    const { recorder, service } = build();
    await service.request(request(), ALICE);
    recorder.answer = () => Promise.reject(new NsmError("UNAVAILABLE", "unreachable", "gone"));
    await expect(service.close(connection(), ALICE)).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await service.close(connection(), ALICE);
    expect(kinds(recorder)).toEqual(["request", "close"]);
  });
});

describe("ownership", () => {
  test("a stranger's request and close are refused and change nothing", async () => {
    const { recorder, service } = build();
    await service.request(request(), ALICE);
    const denied = { code: "PERMISSION_DENIED", reason: "foreign-connection" };
    await expect(service.request(request(), MALLORY)).rejects.toMatchObject(denied);
    await expect(service.close(connection(), MALLORY)).rejects.toMatchObject(denied);
    await service.request(request(), ALICE);
    expect(kinds(recorder)).toEqual(["request", "request"]);
  });

  test("a first request that failed claims nothing", async () => {
    const { recorder, service } = build();
    recorder.answer = () => Promise.reject(new NsmError("PERMISSION_DENIED", "no", "no"));
    await expect(service.request(request(), MALLORY)).rejects.toThrow("no");
    recorder.answer = (call) => Promise.resolve(call.connection);
    await service.request(request(), ALICE);
    expect(recorder.calls).toHaveLength(2);
  });

  test("after the close the id is free", async () => {
    const { service } = build();
    await service.request(request(), ALICE);
    await service.close(connection(), ALICE);
    await expect(service.request(request(), MALLORY)).resolves.toBeDefined();
  });
});

describe("states", () => {
  test("the answer is UP", async () => {
    const { recorder, service } = build();
    recorder.answer = (call) => {
      call.connection.state = State.DOWN;
      return Promise.resolve(call.connection);
    };
    expect((await service.request(request(), ALICE)).state).toBe(State.UP);
  });

  const reselect = () => {
    const again = request();
    if (again.connection !== undefined) again.connection.state = State.RESELECT_REQUESTED;
    return again;
  };

  test("a reselect is passed on with the answer of before, and closes nothing first", async () => {
    const { recorder, service } = build();
    recorder.answer = (call) => {
      call.connection.networkServiceEndpointName = "old";
      return Promise.resolve(call.connection);
    };
    await service.request(request(), ALICE);
    const before: unknown[] = [];
    recorder.answer = (call, ctx) => {
      before.push([call.connection.state, ctx.established, ctx.previous?.networkServiceEndpointName]);
      return Promise.resolve(call.connection);
    };
    await service.request(reselect(), ALICE);
    expect(kinds(recorder)).toEqual(["request", "request"]);
    expect(before).toEqual([[State.RESELECT_REQUESTED, true, "old"]]);
  });

  test("a reselect that fails leaves the connection as it was, to be closed as it was", async () => {
    const { recorder, service } = build();
    recorder.answer = (call) => {
      call.connection.networkServiceEndpointName = "old";
      return Promise.resolve(call.connection);
    };
    await service.request(request(), ALICE);
    recorder.answer = () => Promise.reject(new NsmError("NOT_FOUND", "no-candidates", "nobody"));
    await expect(service.request(reselect(), ALICE)).rejects.toThrow("nobody");
    recorder.answer = (call) => Promise.resolve(call.connection);
    await service.close(connection(), ALICE);
    expect(kinds(recorder)).toEqual(["request", "request", "close"]);
    expect(recorder.calls[2]?.connection.networkServiceEndpointName).toBe("old");
  });

  test("a caller that has not heard the last answer goes on along the way of that, not of the one before", async () => {
    const { recorder, service } = build();
    const along = (next: string, nse: string) => {
      const asked = requestOn(["client", "me", next]);
      if (asked.connection?.path !== undefined) asked.connection.path.index = 1;
      if (asked.connection !== undefined) asked.connection.id = "me";
      if (asked.connection !== undefined) asked.connection.networkServiceEndpointName = nse;
      return asked;
    };
    await service.request(along("new", "nse-new"), ALICE);
    await service.request(along("old", "nse-old"), ALICE);
    const anew = along("old", "");
    if (anew.connection !== undefined) anew.connection.state = State.RESELECT_REQUESTED;
    await service.request(anew, ALICE);
    expect(recorder.calls.slice(1).map((call) => call.connection)).toMatchObject([
      { path: { pathSegments: [{}, {}, { id: "new" }] }, networkServiceEndpointName: "nse-new" },
      { path: { pathSegments: [{}, {}, { id: "new" }] }, networkServiceEndpointName: "" },
    ]);
  });

  test("a refresh that fails keeps the connection", async () => {
    const { recorder, service } = build();
    await service.request(request(), ALICE);
    recorder.answer = () => Promise.reject(new NsmError("UNAVAILABLE", "unreachable", "away"));
    await expect(service.request(request(), ALICE)).rejects.toThrow("away");
    recorder.answer = (call) => Promise.resolve(call.connection);
    await service.close(connection(), ALICE);
    expect(kinds(recorder)).toEqual(["request", "request", "close"]);
  });

  test("what was made for a caller that left meanwhile is undone", async () => {
    const { recorder, service } = build();
    const leaving = new AbortController();
    recorder.answer = (call) => {
      if (call.kind === "request") leaving.abort(new NsmError("CANCELLED", "caller-left", "left"));
      return Promise.resolve(call.connection);
    };
    await expect(service.request(request(), { ...ALICE, signal: leaving.signal })).rejects.toThrow("left");
    await service.close(connection(), ALICE);
    expect(kinds(recorder)).toEqual(["request", "close"]);
  });

  test("a refresh whose caller left keeps the connection", async () => {
    const { recorder, service } = build();
    await service.request(request(), ALICE);
    const leaving = new AbortController();
    recorder.answer = (call) => {
      leaving.abort();
      return Promise.resolve(call.connection);
    };
    await service.request(request(), { ...ALICE, signal: leaving.signal });
    expect(kinds(recorder)).toEqual(["request", "request"]);
  });

  test("a lease that ran out during the refresh that renews it closes nothing", async () => {
    const { recorder, service } = build();
    let expire: (() => Promise<void>) | undefined;
    recorder.answer = (call, ctx) => {
      expire ??= () => ctx.events.close("its lease ran out");
      return Promise.resolve(call.connection);
    };
    await service.request(request(), ALICE);
    const gate = createGate();
    recorder.answer = async (call) => {
      await gate.wait();
      return call.connection;
    };
    const refresh = service.request(request(), ALICE);
    await gate.reached;
    const expired = expire?.();
    gate.resolve();
    await Promise.all([refresh, expired]);
    expect(kinds(recorder)).toEqual(["request", "request"]);
  });

  test("a close has the tokens of its message where the stored ones ran out, for the hops before alone", async () => {
    const { recorder, service } = build();
    await service.request(request(), ALICE);
    const message = connection();
    for (const segment of message.path?.pathSegments ?? []) segment.token = "fresh";
    await service.close(message, ALICE);
    expect(recorder.calls[1]?.connection.path?.pathSegments.map(({ token }) => token)).toEqual(["fresh", ""]);
  });

  test("a request waits for the close of an unknown id that is under way", async () => {
    const { recorder, service } = build({ closeUnknown: true });
    const gate = createGate();
    recorder.answer = async (call) => {
      if (call.kind === "close") await gate.wait();
      return call.connection;
    };
    const closing = service.close(connection(), ALICE);
    await gate.reached;
    const asking = service.request(request(), ALICE);
    await expect(service.request(request(), MALLORY)).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
    expect(kinds(recorder)).toEqual(["close"]);
    gate.resolve();
    await Promise.all([closing, asking]);
    expect(kinds(recorder)).toEqual(["close", "request"]);
  });

  test("an element can close the connection by itself", async () => {
    const { recorder, service } = build();
    let close: ((why: string) => Promise<void>) | undefined;
    const peers: unknown[] = [];
    recorder.answer = (call, ctx) => {
      peers.push(ctx.peer?.spiffeId);
      if (call.kind === "request") close = (why) => ctx.events.close(why);
      return Promise.resolve(call.connection);
    };
    await service.request(request(), ALICE);
    await close?.("its lease ran out");
    await service.close(connection(), ALICE);
    expect(kinds(recorder)).toEqual(["request", "close"]);
    expect(peers).toEqual(["spiffe://example.org/alice", undefined]);
  });
});
