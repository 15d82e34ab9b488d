/** The client, as nsc/main.ts builds it: one follower of the manager, and one wire. */
import { toJson } from "@bufbuild/protobuf";
import { followManager } from "../../../nsc/follow.ts";
import type { Follower } from "../../../nsc/follow.ts";
import { createManager } from "../../../sdk/manager-client.ts";
import type { Wish } from "../../../nsc/request.ts";
import { createWire } from "../../../nsc/wire.ts";
import type { ClientWire } from "../../../nsc/wire.ts";
import { addClientInfo, clientInfoOf } from "../../../sdk/client-info.ts";
import { Defaults } from "../../../sdk/defaults.ts";
import { silentLogger as log } from "../../../sdk/log.ts";
import { idMatcher } from "../../../sdk/peer-ids.ts";
import type { Bench } from "./bench.ts";
import { memberOf, textOf } from "./places.ts";
import { methodOf, requestOf, serverOf } from "./recording.ts";
import type { RecordedCall, RecordedStep } from "./recording.ts";
import { nodeOf } from "./registering.ts";
import type { Start } from "./roles.ts";

/** What a client does; every other step was made by hand with its identity, to see how managers answer. */
const STEPS = new Set(["monitor", "unmonitor", "request", "refresh", "close", "killed"]);
const REQUEST_TIMEOUT_MS = 15_000;

export const startClient: Start = (bench, { pool }) => {
  const { recorded, component, clock, minter, trustDomain, places } = bench;
  const expect = idMatcher(Defaults.managerIds.split(","), trustDomain);
  const url = places.urlOf(serverOf(recorded, component.name, "nsmgr"));
  const manager = createManager({
    pool,
    minter,
    clock,
    target: { url, expect },
    requestTimeoutMs: REQUEST_TIMEOUT_MS,
  });
  const stop = new AbortController();
  const wires = new Map<string, Running>();
  let follower: Follower | undefined;
  const start = (wish: Wish): Running => {
    const options = { manager, clock, log, requestTimeoutMs: REQUEST_TIMEOUT_MS, random: () => 0 };
    const wire = createWire(wish, { ...options, onUp: () => undefined });
    const end = new AbortController();
    return { wire, end, ended: wire.run(end.signal) };
  };
  return {
    handlers: new Map(),
    async step(step) {
      if (step.do === "monitor" || step.do === "request")
        follower ??= followManager(manager, { name: component.name, netnsUrl: "", log }, stop.signal);
      await follower?.adopted;
      const request = firstCall(bench, step);
      const id = request === undefined ? "" : idIn(request);
      if (step.do === "request" && request !== undefined) {
        wires.set(id, start(wishOf(bench, request)));
        follower?.follow([...wires.values()].map(({ wire }) => wire));
      }
      if (step.do === "refresh") wires.get(id)?.wire.tell("refresh");
      if (step.do === "close") await end(wires.get(id));
    },
    isByHand: (call) => isByHand(bench, call),
    async [Symbol.asyncDispose]() {
      stop.abort();
      await Promise.all([...wires.values()].map(end));
    },
  };
};

interface Running {
  readonly wire: ClientWire;
  readonly end: AbortController;
  readonly ended: Promise<void>;
}

async function end(running: Running | undefined): Promise<void> {
  running?.end.abort();
  await running?.ended;
}

/** The Request or Close that a step came to. */
function firstCall(
  { recorded, component }: Bench,
  { at, done = Infinity }: RecordedStep,
): RecordedCall | undefined {
  return recorded.calls.find(
    ({ client, method, begin }) =>
      client === component.name &&
      method.startsWith("/networkservice.NetworkService/") &&
      at <= begin &&
      begin <= done,
  );
}

/** Connection id in a Request or Close. */
function idIn(call: RecordedCall): string {
  const json = toJson(methodOf(call).input, requestOf(call));
  return textOf(memberOf(memberOf(json, "connection") ?? json, "id"));
}

function isByHand({ recorded, component }: Bench, { begin }: RecordedCall): boolean {
  return recorded.steps.some(
    (step) =>
      step.component === component.name &&
      !STEPS.has(step.do) &&
      step.at <= begin &&
      begin <= (step.done ?? Infinity),
  );
}

/** What the recorded client wanted, as our configuration would say it. */
function wishOf(bench: Bench, request: RecordedCall): Wish {
  const { component } = bench;
  const json = toJson(methodOf(request).input, requestOf(request));
  const connection = memberOf(json, "connection");
  const preferences = memberOf(json, "mechanismPreferences");
  const parameters = memberOf(Array.isArray(preferences) ? preferences[0] : undefined, "parameters");
  const info = clientInfoOf(nodeOf(bench));
  const labels = Object.fromEntries(
    Object.entries(memberOf(connection, "labels") ?? {})
      .filter(([label]) => !info.has(label))
      .map(([label, value]) => [label, textOf(value)]),
  );
  addClientInfo(labels, info);
  return {
    id: textOf(memberOf(connection, "id")),
    name: component.name,
    networkService: textOf(memberOf(connection, "networkService")),
    labels,
    interfaceName: textOf(memberOf(parameters, "name")) || undefined,
    netnsUrl: textOf(memberOf(parameters, "inodeURL")),
  };
}
