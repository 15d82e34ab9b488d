/** The forwarder, as forwarder/main.ts builds it, with a recorder in place of the kernel. */
import { randomUUID } from "node:crypto";
import { toJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { MonitorConnection } from "../../../api/gen/connection_pb.js";
import { NetworkService } from "../../../api/gen/networkservice_pb.js";
import { createForwarderChain } from "../../../forwarder/chain.ts";
import { createOrphans } from "../../../forwarder/elements/orphans.ts";
import { createTunnels } from "../../../forwarder/elements/tunnels.ts";
import type { CallContext } from "../../../sdk/chain.ts";
import { Defaults } from "../../../sdk/defaults.ts";
import { createMonitorStore } from "../../../sdk/elements/monitor.ts";
import { monitorHandlers, networkServiceHandlers } from "../../../sdk/elements/serve.ts";
import type { NextHop } from "../../../sdk/elements/target.ts";
import { createHops } from "../../../sdk/hops.ts";
import { silentLogger as log } from "../../../sdk/log.ts";
import { idMatcher } from "../../../sdk/peer-ids.ts";
import { createRegistryView } from "../../../sdk/registry/view.ts";
import type { Bench } from "./bench.ts";
import { createPlannedDataplane } from "./dataplane.ts";
import { inodeIn, pidIn } from "./netns.ts";
import { answersOf } from "./nse.ts";
import { memberOf } from "./places.ts";
import { createRegistering, forwarderRegistrants, registriesOf } from "./registering.ts";
import { methodOf, requestOf, responsesOf } from "./recording.ts";
import type { RecordedCall } from "./recording.ts";
import type { Start } from "./roles.ts";

export const startForwarder: Start = (bench, playback) => {
  const { component, clock, minter, trustDomain, subject } = bench;
  const stack = new AsyncDisposableStack();
  const { pool } = playback;
  const isManager = idMatcher(Defaults.managerIds.split(","), trustDomain);
  const isProxy = idMatcher(Defaults.proxyIds.split(","), trustDomain);
  const ofManager = ({ peer }: CallContext) => peer?.transport === "unix" && isManager(peer.spiffeId);
  const view = stack.use(createRegistryView(registriesOf(bench, playback), clock, log));
  const registering = stack.use(createRegistering(forwarderRegistrants(bench, playback)));
  const hops = stack.use(
    createHops({ pool, minter, name: component.name, log, isAlive: ({ url }) => playback.isAlive(url) }),
  );
  const store = createMonitorStore();
  const underlay = underlayOf(bench);
  const dataplane = createPlannedDataplane(bench);
  const tunnels = createTunnels({ dataplane, ...underlay });
  const chain = createForwarderChain({
    name: component.name,
    minter,
    clock,
    store,
    log,
    hops,
    newId: () => subject.names.invent(randomUUID()),
    client: { tunnels, isManager: ofManager, release: (id) => dataplane.release(id), priority: [] },
    // The recordings were made on the loopback.
    select: { view, clock, log, isManager, isProxy, holdsWire: () => false, refusedAddresses: [] },
    plumb: { dataplane, tunnels, listenerOf: (hop) => listenerOf(bench, hop), log },
    orphans: stack.use(createOrphans({ clock, log })),
  });
  return {
    handlers: new Map<string, Readonly<Record<string, unknown>>>([
      [NetworkService.typeName, networkServiceHandlers(chain)],
      [MonitorConnection.typeName, monitorHandlers(store)],
    ]),
    incoming: (call, json) => (call.network === "unix" ? vouched(json) : json),
    step: (step) => registering.step(step),
    // A wire goes with its Close, whatever the hops behind say.
    after: (call, succeeded) =>
      succeeded || call.method.endsWith("/Close") ? dataplane.check(call, playback.sent) : [],
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
};

/** The recorded manager sent a descriptor of the client's namespace along; ours names a process that lives in it. */
function vouched(json: JsonValue): JsonValue {
  if (Array.isArray(json)) return json.map(vouched);
  if (typeof json !== "object" || json === null) return json;
  const inner = Object.fromEntries(Object.entries(json).map(([key, value]) => [key, vouched(value)]));
  if (inner["cls"] !== "LOCAL") return inner;
  const parameters = inner["parameters"] ?? {};
  if (typeof parameters !== "object" || Array.isArray(parameters)) return inner;
  const peerPID = String(pidIn(inodeIn(memberOf(parameters, "inodeURL"))));
  return { ...inner, parameters: { ...parameters, peerPID } };
}

/** A process in the namespace that the recorded endpoint answered with. */
function listenerOf({ places, recorded }: Bench, hop: NextHop): number {
  const name = places.componentAt(hop.url)?.name ?? "";
  return pidIn(inodeIn(answersOf(recorded, name)[0]?.mechanism?.parameters["inodeURL"]));
}

/** Own tunnel address and port, from what the recorded forwarder offered or answered. */
function underlayOf({ recorded, component }: Bench): { tunnelIp: string; vxlanPort: number } {
  const calls = recorded.calls.filter((call) => call.method.endsWith("NetworkService/Request"));
  const offered = calls
    .filter(({ client }) => client === component.name)
    .map((call) => ({ mechanism: firstOffer(call), side: "src" }));
  const answered = calls
    .filter(({ server }) => server === component.name)
    .map((call) => ({ mechanism: answerOf(call), side: "dst" }));
  for (const { mechanism, side } of [...offered, ...answered]) {
    if (memberOf(mechanism, "type") !== "VXLAN") continue;
    const parameters = memberOf(mechanism, "parameters");
    const ip = memberOf(parameters, `${side}_ip`);
    const port = Number(memberOf(parameters, `${side}_port`));
    if (typeof ip === "string") return { tunnelIp: ip, vxlanPort: port };
  }
  return { tunnelIp: "192.0.2.1", vxlanPort: Defaults.vxlanPort };
}

function firstOffer(call: RecordedCall): JsonValue | undefined {
  const offers = memberOf(toJson(methodOf(call).input, requestOf(call)), "mechanismPreferences");
  return Array.isArray(offers) ? offers[0] : undefined;
}

function answerOf(call: RecordedCall): JsonValue | undefined {
  const [answer] = responsesOf(call);
  return answer && memberOf(toJson(methodOf(call).output, answer), "mechanism");
}
