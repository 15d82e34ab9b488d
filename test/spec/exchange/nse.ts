/** The endpoint, as nse/main.ts builds it; pools, namespace and interface names are those that the recorded one shows. */
import { randomUUID } from "node:crypto";
import { ConnectionSchema, MonitorConnection } from "../../../api/gen/connection_pb.js";
import type { Connection } from "../../../api/gen/connection_pb.js";
import { NetworkService } from "../../../api/gen/networkservice_pb.js";
import { createEndpointChain } from "../../../nse/chain.ts";
import { createIdle } from "../../../nse/on-idle.ts";
import { createMonitorStore } from "../../../sdk/elements/monitor.ts";
import { monitorHandlers, networkServiceHandlers } from "../../../sdk/elements/serve.ts";
import { createIpam, parsePrefixGroups } from "../../../sdk/ipam/group.ts";
import { silentLogger as log } from "../../../sdk/log.ts";
import { generateInterfaceName } from "../../../sdk/mechanisms/kernel.ts";
import { decodeMessage } from "../../../sdk/message.ts";
import { createRegistering, endpointRegistrants } from "./registering.ts";
import type { RecordedCase } from "./recording.ts";
import type { Start } from "./roles.ts";

export const startEndpoint: Start = (bench, playback) => {
  const { recorded, component, clock, minter, subject } = bench;
  const [first] = answersOf(recorded, component.name);
  const store = createMonitorStore();
  const registering = createRegistering(endpointRegistrants(bench, playback));
  const chain = createEndpointChain({
    name: component.name,
    minter,
    clock,
    store,
    log,
    idle: createIdle({ timeoutMs: 0, clock, stop: () => undefined }),
    ipam: createIpam(first === undefined ? [] : parsePrefixGroups(poolsOf(first)), "polite"),
    dns: [],
    policies: () => [],
    netnsUrl: first?.mechanism?.parameters["inodeURL"] ?? "",
    interfaceName: (service) => subject.names.invent(generateInterfaceName(service)),
    newId: () => subject.names.invent(randomUUID()),
  });
  return {
    handlers: new Map<string, Readonly<Record<string, unknown>>>([
      [NetworkService.typeName, networkServiceHandlers(chain)],
      [MonitorConnection.typeName, monitorHandlers(store)],
    ]),
    step: (step) => registering.step(step),
    // Go's client library was asked for it; no endpoint, theirs or ours, takes its services out.
    isByHand: ({ method }) => method === "/registry.NetworkServiceRegistry/Unregister",
    [Symbol.asyncDispose]: () => registering[Symbol.asyncDispose](),
  };
};

/** What an endpoint answered, oldest first. */
export function answersOf(recorded: RecordedCase, name: string): Connection[] {
  const requests = recorded.calls.filter(
    (call) => call.server === name && call.method.endsWith("NetworkService/Request"),
  );
  return requests.flatMap(({ responses }) =>
    responses.map(({ bytes }) => decodeMessage(ConnectionSchema, Buffer.from(bytes, "base64"))),
  );
}

/** The pairs that were given out, as pools: the endpoint has the first address, the client the second. */
function poolsOf(connection: Connection): string {
  const addresses = connection.context?.ipContext?.dstIpAddrs ?? [];
  return addresses.map((address) => address.replace("/32", "/31").replace("/128", "/127")).join(",");
}
