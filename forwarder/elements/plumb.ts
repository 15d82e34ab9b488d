/** The endpoint's end of a wire, and the moment when a wire becomes kernel state: on the way back, when both ends are known. */
import { clone, create } from "@bufbuild/protobuf";
import { MechanismSchema, State } from "../../api/gen/connection_pb.js";
import type { Connection, Mechanism } from "../../api/gen/connection_pb.js";
import { ConnectionContextSchema } from "../../api/gen/connectioncontext_pb.js";
import type { CallContext, Element } from "../../sdk/chain.ts";
import type { WithEvents } from "../../sdk/elements/begin.ts";
import { isLocal } from "../../sdk/elements/target.ts";
import type { NextHop, WithNextHop } from "../../sdk/elements/target.ts";
import { connectionOf, idBehind } from "../../sdk/elements/update-path.ts";
import { NsmError } from "../../sdk/errors.ts";
import { KERNEL, wantsNoAddresses } from "../../sdk/mechanisms/kernel.ts";
import { getParameter } from "../../sdk/mechanisms/parameters.ts";
import type { Logger } from "../../sdk/log.ts";
import { bindingOf } from "./binding.ts";
import type { WithClientEnd } from "./client-side.ts";
import type { Dataplane, KernelSide, Wire } from "../dataplane.ts";
import { netnsOfProcess } from "./namespaces.ts";
import { writeSegmentMetrics } from "./segment-metrics.ts";
import type { Tunnels } from "./tunnels.ts";

/** What a local wire gets when nobody asked for less; the value that the Go forwarders start with. */
const LOCAL_MTU = 9000;

export interface PlumbOptions {
  readonly dataplane: Dataplane;
  readonly tunnels: Tunnels;
  /** The process that listens on a local hop's socket, as the kernel tells it. */
  readonly listenerOf: (hop: NextHop) => number;
  readonly log: Logger;
}

type Needs = WithEvents & WithClientEnd & WithNextHop;
type Context = CallContext & Needs;

/**
 * Offers the next hop a mechanism, and turns the answer into a wire. One that cannot be made is closed again behind us, unless the
 * wire of before leads there, also that of an earlier life of ours. State: the mechanism towards the next hop per connection; dropped on close.
 */
export function plumb(
  options: PlumbOptions,
): Element<WithEvents & WithClientEnd & WithNextHop, WithEvents & WithNextHop> {
  const { dataplane } = options;
  const mechanisms = new Map<string, { readonly url: string; readonly mechanism: Mechanism }>();

  return (next) => {
    const closeBehind = async (connection: Connection, ctx: Context) => {
      const signal = AbortSignal.timeout(5000);
      await next.close(connection, { ...ctx, signal }).catch((err: unknown) => {
        options.log.info({ connection: connection.id, err }, "closing behind a failed wire failed");
      });
    };
    return {
      async request(request, ctx) {
        const connection = connectionOf(request);
        const { id } = connection;
        const known = mechanisms.get(id);
        const isSameHop = known?.url === ctx.nextHop.url;
        const isDoubted = connection.state === State.RESELECT_REQUESTED;
        const keepsMechanism = isSameHop && !isDoubted;
        connection.context ??= create(ConnectionContextSchema);
        if (connection.context.MTU === 0) connection.context.MTU = LOCAL_MTU;
        const offer = await offerTo(options, connection, ctx.nextHop);
        request.mechanismPreferences = [offer];
        if (known !== undefined && keepsMechanism)
          connection.mechanism = clone(MechanismSchema, known.mechanism);
        else delete connection.mechanism;

        const brought = broughtBy(connection);
        const idBefore = idBehind(ctx.previous ?? connection);
        const response = await next.request(request, ctx);
        try {
          refuseOther(response, offer.type);
          const wire = { ...wireOf(options, response, ctx, brought), isDoubted };
          await dataplane.apply(wire, ctx.signal);
          writeSegmentMetrics(response, ctx.clientMechanism, wire, dataplane.lastStats(id));
        } catch (error) {
          const isOurs = known === undefined ? dataplane.found(id).length > 0 : isSameHop;
          if (!isOurs || idBehind(response) !== idBefore) await closeBehind(response, ctx);
          throw error;
        }
        const mechanism = response.mechanism;
        if (mechanism !== undefined)
          mechanisms.set(id, { url: ctx.nextHop.url, mechanism: clone(MechanismSchema, mechanism) });
        return response;
      },
      async close(connection, ctx) {
        refuseForeignDevice(dataplane, connection, mechanisms.has(connection.id));
        const known = mechanisms.get(connection.id);
        mechanisms.delete(connection.id);
        if (known === undefined) delete connection.mechanism;
        else connection.mechanism = known.mechanism;
        const [behind, removed] = await Promise.allSettled([
          next.close(connection, ctx),
          dataplane.remove(connection.id),
        ]);
        if (removed.status === "rejected") throw removed.reason;
        if (behind.status === "rejected") throw behind.reason;
      },
    };
  };
}

/** After a restart nothing is remembered; the devices say whose they are. */
function refuseForeignDevice(dataplane: Dataplane, connection: Connection, remembered: boolean): void {
  if (remembered) return;
  const binding = bindingOf(connection);
  if (dataplane.found(connection.id).every((device) => device.binding === binding)) return;
  throw new NsmError(
    "PERMISSION_DENIED",
    "foreign-connection",
    `connection ${connection.id} belongs to another client or path`,
  );
}

async function offerTo({ tunnels }: PlumbOptions, connection: Connection, hop: NextHop): Promise<Mechanism> {
  if (isLocal(hop)) return create(MechanismSchema, { cls: "LOCAL", type: "KERNEL" });
  return await tunnels.offer(connection.id, connection.payload, hop.url);
}

/** An answer that was not offered, VXLAN for WIREGUARD say, would make a wire that is not encrypted. */
function refuseOther({ mechanism, networkServiceEndpointName: nse }: Connection, offered: string): void {
  if (mechanism === undefined || mechanism.type === offered) return;
  throw new NsmError(
    "FAILED_PRECONDITION",
    "no-common-mechanism",
    `endpoint ${nse} was offered ${offered} and answered ${mechanism.type}`,
  );
}

/** What would become addresses and routes of the endpoint's pod if its answer repeats it. */
function broughtBy({ context }: Connection): readonly string[] {
  const { srcIpAddrs = [], dstIpAddrs = [], dstRoutes = [] } = context?.ipContext ?? {};
  return [...srcIpAddrs, ...dstIpAddrs, ...dstRoutes.map(({ prefix }) => prefix)];
}

function wireOf(
  options: PlumbOptions,
  response: Connection,
  ctx: WithClientEnd & WithNextHop,
  brought: readonly string[],
): Wire {
  const ip = response.context?.ipContext;
  const ethernet = response.context?.ethernetContext;
  const binding = bindingOf(response);
  const { clientEnd } = ctx;
  return {
    id: response.id,
    payload: response.payload === "ETHERNET" ? "ETHERNET" : "IP",
    mtu: response.context?.MTU ?? 0,
    client: clientEnd.kind === "kernel" ? { ...clientEnd, binding } : clientEnd,
    endpoint: endpointEnd(options, response, ctx.nextHop, binding),
    ip: {
      srcAddresses: ip?.srcIpAddrs ?? [],
      dstAddresses: ip?.dstIpAddrs ?? [],
      srcRoutes: ip?.srcRoutes ?? [],
      dstRoutes: ip?.dstRoutes ?? [],
      neighbors: (ip?.ipNeighbors ?? []).map((entry) => ({ ip: entry.ip, mac: entry.hardwareAddress })),
      policies: ip?.policies ?? [],
      brought,
    },
    ...(ethernet?.srcMac ? { srcMac: ethernet.srcMac } : {}),
    ...(ethernet?.dstMac ? { dstMac: ethernet.dstMac } : {}),
  };
}

function endpointEnd(
  options: PlumbOptions,
  response: Connection,
  hop: NextHop,
  binding: string,
): Wire["endpoint"] {
  const { mechanism } = response;
  if (mechanism === undefined)
    throw new NsmError(
      "FAILED_PRECONDITION",
      "no-common-mechanism",
      `endpoint ${response.networkServiceEndpointName} chose no mechanism`,
    );
  if (mechanism.type !== "KERNEL") return options.tunnels.accept(response.id, mechanism);
  if (!isLocal(hop))
    throw new NsmError(
      "FAILED_PRECONDITION",
      "no-common-mechanism",
      `endpoint ${response.networkServiceEndpointName} answered KERNEL from another node`,
    );
  const netns = netnsOfProcess(options.listenerOf(hop), mechanism.parameters["inodeURL"]);
  const side: KernelSide = {
    kind: "kernel",
    netns,
    interfaceName: mechanism.parameters["name"] ?? "",
    binding,
    isBare: wantsNoAddresses(mechanism.parameters),
    acceptsDefaultRoute: getParameter(mechanism.parameters, KERNEL.acceptDefaultRoute),
  };
  return side;
}
