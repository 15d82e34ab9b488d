/** The client's end of a wire: which mechanism it comes by, and what the caller proved of it (docs/protocol.md, "Mechanisms", "Namespaces"). */
import { clone } from "@bufbuild/protobuf";
import { MechanismSchema } from "../../api/gen/connection_pb.js";
import type { Connection, Mechanism } from "../../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import type { CallContext, Element } from "../../sdk/chain.ts";
import type { WithEvents } from "../../sdk/elements/begin.ts";
import { connectionOf } from "../../sdk/elements/update-path.ts";
import { NsmError } from "../../sdk/errors.ts";
import { checkInterfaceName } from "../../sdk/interface-name.ts";
import { KERNEL, generateInterfaceName, wantsNoAddresses } from "../../sdk/mechanisms/kernel.ts";
import { getParameter } from "../../sdk/mechanisms/parameters.ts";
import type { Parameters } from "../../sdk/mechanisms/parameters.ts";
import type { ClientNamespaces } from "./client-namespaces.ts";
import type { NetnsRef } from "../dataplane.ts";
import { netnsOfCaller } from "./namespaces.ts";
import type { Tunnels } from "./tunnels.ts";
import type { TunnelEnd } from "./tunnels.ts";

/** Name servers and API servers of a client: routes around each are several. */
const MOST_PROTECTED = 16;

export type ClientEnd =
  | {
      readonly kind: "kernel";
      readonly netns: NetnsRef;
      readonly interfaceName: string;
      /** The process that asks, where that is known. */
      readonly owner?: string;
      readonly isBare?: boolean;
      readonly acceptsDefaultRoute?: boolean;
      readonly protectedAddresses?: readonly string[];
    }
  | TunnelEnd;

export interface WithClientEnd {
  readonly clientEnd: ClientEnd;
  /** What the answer tells the caller; later elements may add parameters (`dst_public_key`). */
  readonly clientMechanism: Mechanism;
}

export interface ClientSideOptions {
  readonly tunnels: Tunnels;
  /** True for the manager of this node: only it may say whose namespace a process lives in. */
  readonly isManager: (ctx: CallContext) => boolean;
  /** Mechanism types to prefer among the offers, first is best, in any case; the rest keep the caller's order. */
  readonly priority: readonly string[];
  /** Every client of this node takes default routes, whatever it says. */
  readonly acceptDefaultRoute?: boolean;
  /** What every client of this node keeps on its own network, beside what it says itself. Default none. */
  readonly protectedAddresses?: readonly string[];
  /** Drops what a first request that failed had reserved (ports, keys, network identifiers). */
  readonly release: (wireId: string) => void;
}

/**
 * Picks the mechanism that the connection has, else the first offered one that this node can do.
 * Throws FAILED_PRECONDITION `no-common-mechanism`; PERMISSION_DENIED for a namespace that is not the caller's.
 * State: the namespace that each wire was asked for from, in `namespaces`; dropped on close.
 */
export function clientSide(
  options: ClientSideOptions,
  namespaces: ClientNamespaces,
): Element<WithEvents, WithEvents & WithClientEnd> {
  return (next) => ({
    async request(request, ctx) {
      const connection = connectionOf(request);
      const { id } = connection;
      const clientMechanism = chooseMechanism(request, options);
      try {
        // Chosen anew without a name of its own, a wire keeps the one that it has.
        const known = ctx.previous?.mechanism?.parameters["name"];
        if (known !== undefined) clientMechanism.parameters["name"] ||= known;
        const clientEnd = await endOf(clientMechanism, connection, ctx, options);
        connection.mechanism = clone(MechanismSchema, clientMechanism);
        const response = await next.request(request, { ...ctx, clientEnd, clientMechanism });
        if (clientEnd.kind === "kernel") namespaces.keep(id, clientEnd.netns);
        response.mechanism = clientMechanism;
        return response;
      } catch (error) {
        if (!ctx.established) options.release(id);
        throw error;
      }
    },
    async close(connection, ctx) {
      const clientMechanism = connection.mechanism ?? kernelMechanism();
      const clientEnd: ClientEnd = { kind: "kernel", netns: { pid: 0, inode: 0n }, interfaceName: "" };
      namespaces.drop(connection.id);
      await next.close(connection, { ...ctx, clientEnd, clientMechanism });
    },
  });
}

function chooseMechanism(
  request: NetworkServiceRequest,
  { tunnels, priority }: ClientSideOptions,
): Mechanism {
  const present = connectionOf(request).mechanism;
  const offers = present === undefined ? byPriority(request.mechanismPreferences, priority) : [present];
  const usable = offers.find(({ type }) => type === "KERNEL" || tunnels.can(type));
  if (usable !== undefined) return clone(MechanismSchema, usable);
  const offered = offers.map(({ type }) => type).join(", ") || "none";
  const limits = offers.map(({ type }) => tunnels.whyNot(type)).filter(Boolean);
  throw new NsmError(
    "FAILED_PRECONDITION",
    "no-common-mechanism",
    `offered mechanisms: ${offered}; this forwarder does ${tunnels.list().join(", ")}${limits.length > 0 ? `; ${limits.join("; ")}` : ""}`,
  );
}

function byPriority(offers: readonly Mechanism[], priority: readonly string[]): readonly Mechanism[] {
  const wanted = priority.map((type) => type.toUpperCase());
  const rank = ({ type }: Mechanism) => (wanted.includes(type) ? wanted.indexOf(type) : wanted.length);
  return offers.toSorted((a, b) => rank(a) - rank(b));
}

async function endOf(
  mechanism: Mechanism,
  connection: Connection,
  ctx: CallContext,
  options: ClientSideOptions,
): Promise<ClientEnd> {
  if (mechanism.type !== "KERNEL") return options.tunnels.serve(mechanism, connection);
  const { parameters } = mechanism;
  parameters["name"] ||= generateInterfaceName(connection.networkService);
  const interfaceName = checkInterfaceName(parameters["name"]);
  const netns = netnsOfCaller(parameters, options.isManager(ctx));
  const acceptsDefaultRoute =
    options.acceptDefaultRoute === true || getParameter(parameters, KERNEL.acceptDefaultRoute);
  const protectedAddresses = [...(options.protectedAddresses ?? []), ...protectedBy(parameters)];
  const isBare = wantsNoAddresses(parameters);
  return {
    kind: "kernel",
    netns,
    interfaceName,
    isBare,
    acceptsDefaultRoute,
    ...(protectedAddresses.length > 0 && { protectedAddresses }),
  };
}

/** Throws INVALID_ARGUMENT `limit`; what is no address is told when the wire is planned. */
function protectedBy(parameters: Parameters): readonly string[] {
  const addresses = (getParameter(parameters, KERNEL.protectedAddresses) ?? []).filter((text) => text !== "");
  if (addresses.length <= MOST_PROTECTED) return addresses;
  throw new NsmError(
    "INVALID_ARGUMENT",
    "limit",
    `${addresses.length} protected addresses: at most ${MOST_PROTECTED}`,
  );
}

function kernelMechanism(): Mechanism {
  return clone(MechanismSchema, {
    $typeName: "connection.Mechanism",
    cls: "LOCAL",
    type: "KERNEL",
    parameters: {},
  });
}
