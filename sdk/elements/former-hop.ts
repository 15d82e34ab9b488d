/** Where a connection of an earlier life of this process leads: its path and the registry tell (docs/protocol.md, "Closes that wait"). */
import type { Connection } from "../../api/gen/connection_pb.js";
import { NOWHERE, isLocal } from "./target.ts";
import type { NextHop } from "./target.ts";
import type { Logger } from "../log.ts";
import type { RegistryView } from "../registry/view.ts";
import { hopTo } from "./hop-to.ts";
import type { HopToOptions } from "./hop-to.ts";

/** For one look at the registry that nobody waits for. */
const LOOK_UP_MS = 5000;

export interface FormerHopOptions extends HopToOptions {
  readonly view: Pick<RegistryView, "endpoint">;
  /** Service under which forwarders register, where hops of other nodes are to be found by theirs. */
  readonly forwarderService?: string;
  readonly log: Logger;
}

/** As long as the registry is away that is to be found out later. What nobody knows any more is nowhere. */
export async function formerHop(
  options: FormerHopOptions,
  connection: Connection,
  signal: AbortSignal,
): Promise<NextHop> {
  try {
    return (await find(options, connection, signal)) ?? NOWHERE;
  } catch (err) {
    const { id, networkService, networkServiceEndpointName: nse } = connection;
    options.log.info({ connection: id, nse, err }, "endpoint of a closing connection not found");
    const again = {
      key: `endpoint ${nse} of ${networkService}`,
      find: () => find(options, connection, AbortSignal.timeout(LOOK_UP_MS)),
    };
    return { ...NOWHERE, again };
  }
}

/** To the endpoint; on another node, when that has ended, to the manager by which the forwarder there registered. */
async function find(
  options: FormerHopOptions,
  { path, networkService, networkServiceEndpointName }: Connection,
  signal: AbortSignal,
): Promise<NextHop | undefined> {
  const [next, beyond] = path?.pathSegments.slice(path.index + 1) ?? [];
  const name = networkServiceEndpointName || next?.name;
  const endpoint = name === undefined ? undefined : await options.view.endpoint(name, networkService, signal);
  if (endpoint !== undefined) return hopTo(endpoint, options);
  const { forwarderService } = options;
  if (beyond === undefined || forwarderService === undefined) return undefined;
  const forwarder = await options.view.endpoint(beyond.name, forwarderService, signal);
  const hop = forwarder && hopTo(forwarder, options);
  return hop === undefined || isLocal(hop) ? undefined : hop;
}
