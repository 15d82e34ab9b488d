import { expect, test } from "vitest";
import { create } from "@bufbuild/protobuf";
import { NetworkServiceEndpointSchema } from "../../api/gen/registry_pb.js";
import type { CallContext } from "../../sdk/chain.ts";
import type { WithEvents } from "../../sdk/elements/begin.ts";
import { exportsOf } from "../../sdk/domains/exports.ts";
import { callBy, connectionOn, createRecorder, eventsOf, requestOn } from "../../test/support/chain.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { makePeer } from "../../test/support/peer.ts";
import type { WithSide } from "../side.ts";
import { letInExported } from "./let-in.ts";

const [ours, theirs] = [await makePeer("/proxy/east"), await makePeer("/proxy/west")];

function build(...services: readonly string[]) {
  let current = services;
  let heard = () => undefined as void;
  const list = () => current.map((service) => ({ service, domain: "west", acceptEndpoints: false }));
  let listed = list();
  const exports = exportsOf(
    () => listed,
    (listener) => {
      heard = listener;
      return { [Symbol.dispose]: () => undefined };
    },
  );
  const withdraw = () => {
    current = [];
    listed = list();
    heard();
  };
  const closed: string[] = [];
  const recorder = createRecorder<CallContext & WithEvents & WithSide>();
  const known: Readonly<Record<string, string>> = { nse: "service", other: "secret" };
  const service = letInExported({
    exports,
    peers: { domainOf: (id) => (id === theirs.spiffeId ? "west" : undefined) },
    view: {
      endpoint: (name) =>
        Promise.resolve(
          known[name] === undefined
            ? undefined
            : create(NetworkServiceEndpointSchema, { name, networkServiceNames: [known[name]] }),
        ),
    },
    clock: createFakeClock(),
  })(recorder);
  const contextOf = (peer = theirs, established = false) => {
    const events = { close: (why: string) => Promise.resolve(void closed.push(why)) };
    return { ...eventsOf(callBy(peer), { established, events }), way: undefined };
  };
  const ask = (endpoint = "", peer = theirs, established = false) => {
    const request = requestOn(["client", "proxy"]);
    if (request.connection !== undefined) request.connection.networkServiceEndpointName = endpoint;
    return service.request(request, contextOf(peer, established));
  };
  const close = () => service.close(connectionOn(["client", "proxy"]), contextOf());
  return { ask, close, withdraw, closed, recorder };
}

test("what is exported comes in; what is not is not there, and this domain's own needs no export", async () => {
  await expect(build("service").ask()).resolves.toBeDefined();
  await expect(build().ask()).rejects.toMatchObject({ code: "NOT_FOUND", reason: "service-not-found" });
  await expect(build().ask("", ours)).resolves.toBeDefined();
});

test("an endpoint of another service is not there, and says nothing of itself", async () => {
  const { ask, recorder } = build("service");
  await expect(ask("nse")).resolves.toBeDefined();
  const failures = await Promise.all(
    ["other", "none"].map((name) =>
      ask(name).then(
        () => "let in",
        (error: unknown) => error,
      ),
    ),
  );
  expect(failures[0]).toMatchObject({ code: "NOT_FOUND", reason: "endpoint-not-found" });
  expect(recorder.calls.map(({ connection }) => connection.networkServiceEndpointName)).toEqual([
    "nse",
    "none",
  ]);
});

test("withdrawing an export closes what came in by it, once", async () => {
  const { ask, close, withdraw, closed } = build("service");
  await ask();
  withdraw();
  expect(closed).toEqual(["no longer exported to domain west"]);
  await close();
  withdraw();
  expect(closed).toHaveLength(1);
});

test.for([false, true])(
  "what is withdrawn while it is asked for is not made (established: %s)",
  async (is) => {
    const { ask, withdraw, recorder } = build("service");
    const { answer } = recorder;
    recorder.answer = (call, ctx) => {
      withdraw();
      return answer(call, ctx);
    };
    await expect(ask("", theirs, is)).rejects.toMatchObject({ code: "ABORTED" });
    expect(recorder.calls.map(({ kind }) => kind)).toEqual(is ? ["request"] : ["request", "close"]);
  },
);
