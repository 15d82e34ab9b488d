/** Which forwarders of a node serve a connection (docs/protocol.md, "Matching"). Pure. */
import type { Connection } from "../api/gen/connection_pb.js";
import { State } from "../api/gen/connection_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { NsmError } from "./errors.ts";
import { findService, firstMatch, labelText, labelsFor } from "./match.ts";
import { isSubset } from "./selector-template.ts";
import type { Labels } from "./selector-template.ts";

export interface ForwarderInput {
  readonly connection: Connection;
  readonly services: readonly NetworkService[];
  /** What the registry knows of forwarders, in its order. */
  readonly forwarders: readonly NetworkServiceEndpoint[];
  /** Service under which forwarders register (`forwarder`). */
  readonly forwarderService: string;
  /** Only forwarders whose recorded URL contains this one are ours. */
  readonly managerUrl: string;
  /** Name of the forwarder that served this connection before. */
  readonly remembered: string | undefined;
}

/**
 * The forwarders that a manager tries for a Request, in this order. A remembered one is the only choice unless the
 * connection asks for a new selection.
 * Throws NOT_FOUND `service-not-found`; UNAVAILABLE `forwarder-gone` (the remembered one), `no-forwarder`.
 */
export function selectForwarders(input: ForwarderInput): readonly NetworkServiceEndpoint[] {
  const { connection, forwarderService } = input;
  const reselect = connection.state === State.RESELECT_REQUESTED;
  const remembered = reselect ? undefined : input.remembered;
  const service = findService(input.services, connection);
  const local = input.forwarders.filter(
    (forwarder) =>
      forwarder.networkServiceNames.includes(forwarderService) &&
      forwarder.url.includes(input.managerUrl) &&
      (remembered === undefined || forwarder.name === remembered),
  );
  const fitting = matchForwarders(service, connection.labels, local, forwarderService);
  if (fitting.length === 0) throw noForwarder(service, connection.labels, local.length, remembered);
  return reselect || remembered !== undefined ? fitting : nextHopFirst(fitting, connection);
}

/** The forwarder that a Close goes to: the remembered one, else the one that the path names; undefined when it is gone. */
export function forwarderOfClose(
  input: Omit<ForwarderInput, "services" | "forwarderService">,
): NetworkServiceEndpoint | undefined {
  const name = input.remembered ?? nextHop(input.connection);
  return input.forwarders.find(
    (forwarder) => forwarder.name === name && forwarder.url.includes(input.managerUrl),
  );
}

/** By the first match that fits the client: those whose labels hold its metadata, or `p2p=true`. */
export function matchForwarders(
  service: NetworkService,
  client: Labels,
  forwarders: readonly NetworkServiceEndpoint[],
  forwarderService: string,
): readonly NetworkServiceEndpoint[] {
  if (service.matches.length === 0) return forwarders;
  return firstMatch(service, client, (match) => {
    const asked = match.metadata?.labels ?? {};
    const selector = Object.keys(asked).length > 0 ? asked : { p2p: "true" };
    return forwarders.filter((forwarder) =>
      isSubset(selector, labelsFor(forwarder, forwarderService), client),
    );
  });
}

/** A manager that restarted finds its former choice in the path; that one changes places with the first. */
function nextHopFirst(
  forwarders: readonly NetworkServiceEndpoint[],
  connection: Connection,
): readonly NetworkServiceEndpoint[] {
  const at = forwarders.findIndex((forwarder) => forwarder.name === nextHop(connection));
  const [first, preferred] = [forwarders[0], forwarders[at]];
  if (first === undefined || preferred === undefined) return forwarders;
  return forwarders.with(at, first).with(0, preferred);
}

function nextHop(connection: Connection): string | undefined {
  const path = connection.path;
  return path?.pathSegments[path.index + 1]?.name;
}

function noForwarder(
  service: NetworkService,
  client: Labels,
  local: number,
  remembered: string | undefined,
): NsmError {
  const name = JSON.stringify(service.name);
  if (remembered !== undefined && local === 0)
    return new NsmError("UNAVAILABLE", "forwarder-gone", `forwarder ${remembered} is not available`);
  const why =
    local === 0
      ? "no forwarder is registered on this node; start one"
      : `none of the ${local} forwarders of this node fits a client with labels ${labelText(client)}`;
  return new NsmError("UNAVAILABLE", "no-forwarder", `network service ${name}: ${why}`);
}
