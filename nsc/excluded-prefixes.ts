/**
 * Keeps the addresses of a client's wires apart: each request excludes what the other wires have, and an answer that has one of
 * their addresses all the same is given back and asked for again (docs/protocol.md, "Excluded prefixes").
 */
import { clone, create } from "@bufbuild/protobuf";
import { ConnectionSchema } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import { ConnectionContextSchema, IPContextSchema } from "../api/gen/connectioncontext_pb.js";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import type { NetworkServiceRequest } from "../api/gen/networkservice_pb.js";
import { NsmError } from "../sdk/errors.ts";
import { mergePrefixes } from "../sdk/excluded-prefixes.ts";
import { bitsOf, formatPrefix, hostPrefix, parsePrefix } from "../sdk/prefix.ts";
import type { Manager } from "../sdk/manager-client.ts";

/** In one request, after merging; what managers add has room beside it. */
const MOST_PREFIXES = 96;
/** How often an answer with a taken address is asked for again within one request. */
const MOST_CONFLICTS = 3;

export interface ExclusionOptions {
  /** Awareness group of a connection, by id: its members may share addresses. */
  readonly groupOf: (id: string) => number | undefined;
  /** Connections of an earlier life: their addresses are taken, too. */
  readonly adopted: Iterable<Connection>;
}

/** What one connection has: `/32` and `/128`. */
interface Taken {
  readonly addresses: readonly string[];
  /** Hosts that it has a route to. */
  readonly hosts: readonly string[];
}

/** State: what each connection has, from its last good answer until it is closed. */
export function excludeOtherWires(manager: Manager, options: ExclusionOptions): Manager {
  const taken = new Map<string, Taken>();
  for (const connection of options.adopted) taken.set(connection.id, takenBy(connection));

  const byOthers = (id: string): readonly Taken[] => {
    const group = options.groupOf(id);
    return [...taken]
      .filter(([other]) => other !== id && (group === undefined || options.groupOf(other) !== group))
      .map(([, value]) => value);
  };

  return {
    ...manager,
    async request(request, signal) {
      const id = request.connection?.id ?? "";
      const isNew = (request.connection?.path?.pathSegments.length ?? 0) <= 1;
      let asked = request;
      let own = isNew ? new Set<string>() : addressesOf(request.connection);
      for (let conflicts = 0; ; conflicts++) {
        const response = await manager.request(excluding(asked, byOthers(id), own), signal);
        const clash = clashOf(response, byOthers(id));
        if (clash === undefined) {
          taken.set(id, takenBy(response));
          return response;
        }
        if (isNew || conflicts === MOST_CONFLICTS) await manager.close(response, signal);
        if (conflicts === MOST_CONFLICTS) {
          taken.delete(id);
          throw conflict(response, clash);
        }
        // A new wire starts over; an established one stays, and its endpoint exchanges the address.
        if (!isNew) asked = withConnection(request, response);
        own = new Set();
      }
    },
    async close(connection, signal) {
      try {
        await manager.close(connection, signal);
      } finally {
        taken.delete(connection.id);
      }
    },
  };
}

/** What the answer of before excluded does not count any more: managers add theirs to each request. */
function excluding(
  request: NetworkServiceRequest,
  others: readonly Taken[],
  own: ReadonlySet<string>,
): NetworkServiceRequest {
  const copy = clone(NetworkServiceRequestSchema, request);
  if (copy.connection === undefined) return copy;
  const context = (copy.connection.context ??= create(ConnectionContextSchema));
  const ipContext = (context.ipContext ??= create(IPContextSchema));
  const notOwn = (prefixes: readonly string[]) => prefixes.filter((prefix) => !own.has(prefix));
  const addresses = notOwn(others.flatMap((each) => each.addresses));
  const all = mergePrefixes([...addresses, ...notOwn(others.flatMap((each) => each.hosts))]);
  const fitting = all.length <= MOST_PREFIXES ? all : mergePrefixes(addresses);
  ipContext.excludedPrefixes = fitting.slice(0, MOST_PREFIXES);
  return copy;
}

function withConnection(request: NetworkServiceRequest, response: Connection): NetworkServiceRequest {
  const copy = clone(NetworkServiceRequestSchema, request);
  copy.connection = clone(ConnectionSchema, response);
  return copy;
}

function takenBy(connection: Connection): Taken {
  const { srcRoutes = [], dstRoutes = [] } = connection.context?.ipContext ?? {};
  const hosts = [...srcRoutes, ...dstRoutes].flatMap(({ prefix }) => {
    const parsed = parsePrefix(prefix);
    return parsed === undefined || parsed.length < bitsOf(parsed.family) ? [] : [formatPrefix(parsed)];
  });
  return { addresses: [...addressesOf(connection)], hosts };
}

/** An address with a shorter length stands for itself, not for its network: an endpoint cannot take that from the others. */
function addressesOf(connection: Connection | undefined): Set<string> {
  const { srcIpAddrs = [], dstIpAddrs = [] } = connection?.context?.ipContext ?? {};
  const addresses = [...srcIpAddrs, ...dstIpAddrs].map((text) => parsePrefix(text));
  return new Set(
    addresses.filter((address) => address !== undefined).map((address) => formatPrefix(hostPrefix(address))),
  );
}

function clashOf(response: Connection, others: readonly Taken[]): string | undefined {
  const takenAddresses = new Set(others.flatMap((each) => each.addresses));
  return [...addressesOf(response)].find((address) => takenAddresses.has(address));
}

function conflict(response: Connection, address: string): NsmError {
  const { networkService, networkServiceEndpointName: nse } = response;
  return new NsmError(
    "ALREADY_EXISTS",
    "address-conflict",
    `endpoint ${nse} of ${networkService} gives ${address}, which another wire of this client has, though it was excluded: ` +
      "use an endpoint that heeds excluded prefixes, or let the two share addresses (NSM_AWARENESS_GROUPS)",
  );
}
