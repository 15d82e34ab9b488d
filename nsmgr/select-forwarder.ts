/** Picks the forwarder of this node for a connection, and remembers it (docs/protocol.md, "Matching"). */
import { clone } from "@bufbuild/protobuf";
import { ConnectionSchema, State } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import type { CallContext, Element } from "../sdk/chain.ts";
import { NOWHERE } from "../sdk/elements/target.ts";
import type { NextHop, WithNextHop, WithOldWay } from "../sdk/elements/target.ts";
import { connectionOf, nameBehind } from "../sdk/elements/update-path.ts";
import { NsmError, messageOf } from "../sdk/errors.ts";
import type { Logger } from "../sdk/log.ts";
import { forwarderOfClose, selectForwarders } from "../sdk/match-forwarders.ts";
import type { RegistryView } from "../sdk/registry/view.ts";
import type { LocalEndpoints } from "./local-endpoints.ts";
import type { LostForwarders } from "./lost-forwarders.ts";

export interface SelectForwarderOptions {
  readonly view: Pick<RegistryView, "service">;
  readonly local: LocalEndpoints;
  readonly lostForwarders: Pick<LostForwarders, "serves" | "drop" | "isGivenUp">;
  /** Service under which forwarders register. */
  readonly forwarderService: string;
  /** The URL that this manager publishes for everything that registers through it. */
  readonly publicUrl: string;
  readonly log: Logger;
}

/** Failures of a forwarder that another one of this node may not have. */
const OTHER_MAY_HELP = new Set([
  "UNAVAILABLE",
  "INTERNAL",
  "FAILED_PRECONDITION",
  "UNKNOWN",
  "UNIMPLEMENTED",
]);

/** State: the forwarder's name per connection; dropped on close. */
export function selectForwarder(options: SelectForwarderOptions): Element<unknown, WithNextHop & WithOldWay> {
  const chosen = new Map<string, string>();
  const { local, lostForwarders, forwarderService, publicUrl: managerUrl } = options;

  const candidates = async (connection: Connection, ctx: CallContext): Promise<readonly string[]> => {
    const before = chosen.get(connection.id);
    // Whoever is given up is left with its endpoint kept: a refresh leads to it by another forwarder.
    const isGivenUp = before !== undefined && lostForwarders.isGivenUp(before);
    const remembered = isGivenUp ? undefined : before;
    const keeps = remembered !== undefined && connection.state !== State.RESELECT_REQUESTED;
    if (keeps && local.hopTo(remembered, forwarderService) !== undefined) return [remembered];
    const service = await options.view.service(connection.networkService, ctx.signal);
    const services = service === undefined ? [] : [service];
    const forwarders = local.published(forwarderService);
    const found = selectForwarders({
      connection,
      services,
      forwarders,
      forwarderService,
      managerUrl,
      remembered,
    });
    const names = found.map(({ name }) => name);
    // To choose anew is a matter of endpoints in the first place: the forwarder that has the wire replaces it without a gap.
    return [...names.filter((name) => name === remembered), ...names.filter((name) => name !== remembered)];
  };

  return (next) => ({
    async request(request, ctx) {
      const { id } = connectionOf(request);
      const names = await candidates(connectionOf(request), ctx);
      const failures: string[] = [];
      for (const [index, name] of names.entries()) {
        const isLast = index === names.length - 1;
        const attempt = isLast ? request : clone(NetworkServiceRequestSchema, request);
        try {
          const oldWay = leaveOtherWay(connectionOf(attempt), name, options);
          const response = await next.request(attempt, { ...ctx, ...oldWay, nextHop: hopOf(options, name) });
          chosen.set(id, name);
          lostForwarders.serves(id, name);
          return response;
        } catch (error) {
          const final = !(error instanceof NsmError) || !OTHER_MAY_HELP.has(error.code);
          if (isLast || final || ctx.signal.aborted) throw error;
          options.log.info(
            { connection: id, forwarder: name, err: error },
            "forwarder failed, trying the next",
          );
          failures.push(`${name}: ${messageOf(error)}`);
        }
      }
      throw new NsmError(
        "UNAVAILABLE",
        "no-forwarder",
        `no forwarder of this node served: ${failures.join("; ")}`,
      );
    },
    async close(connection, ctx) {
      const remembered = chosen.get(connection.id);
      chosen.delete(connection.id);
      lostForwarders.drop(connection.id);
      const forwarders = local.published(forwarderService);
      const forwarder = forwarderOfClose({ connection, forwarders, managerUrl, remembered });
      const name = remembered ?? nameBehind(connection);
      if (forwarder === undefined) {
        options.log.info(
          { connection: connection.id, forwarder: name },
          "its forwarder is gone, closing here until it is back",
        );
      }
      const hop = forwarder && local.hopTo(forwarder.name, forwarderService);
      const nextHop = name === undefined ? NOWHERE : { ...(hop ?? NOWHERE), ...foundAgain(options, name) };
      await next.close(connection, { ...ctx, nextHop });
    },
  });
}

/**
 * By another forwarder the hops behind it are asked for a wire of its own: what they have belongs to the path by the forwarder
 * of before, which gives it back.
 */
function leaveOtherWay(
  connection: Connection,
  forwarder: string,
  { local, forwarderService }: SelectForwarderOptions,
): WithOldWay {
  const { path } = connection;
  const name = nameBehind(connection);
  if (path === undefined || name === undefined || name === forwarder) return {};
  const before = clone(ConnectionSchema, connection);
  path.pathSegments.length = path.index + 1;
  const hop = local.hopTo(name, forwarderService) ?? NOWHERE;
  return {
    oldWay: { connection: before, hop: { ...hop, ...foundAgain({ local, forwarderService }, name) } },
  };
}

function hopOf({ local, forwarderService }: SelectForwarderOptions, name: string): NextHop {
  const hop = local.hopTo(name, forwarderService);
  if (hop === undefined)
    throw new NsmError("UNAVAILABLE", "forwarder-gone", `forwarder ${name} is not available`);
  return { ...hop, ...foundAgain({ local, forwarderService }, name) };
}

/** It keeps its name when it is started again. */
function foundAgain(
  { local, forwarderService }: Pick<SelectForwarderOptions, "local" | "forwarderService">,
  name: string,
): Pick<NextHop, "again"> {
  return { again: { key: `forwarder ${name}`, find: () => local.hopTo(name, forwarderService) } };
}
