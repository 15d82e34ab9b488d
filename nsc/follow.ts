/** One monitor stream for all wires of a client: news for each, and what an earlier life of the client left (docs/protocol.md, "Monitoring"). */
import { create, clone } from "@bufbuild/protobuf";
import {
  ConnectionEventType,
  ConnectionSchema,
  MonitorScopeSelectorSchema,
  State,
} from "../api/gen/connection_pb.js";
import type { Connection, ConnectionEvent } from "../api/gen/connection_pb.js";
import { createBackoff } from "../sdk/backoff.ts";
import { delay } from "../sdk/clock.ts";
import { wishOf } from "../sdk/elements/wishes.ts";
import type { Logger } from "../sdk/log.ts";
import type { Manager } from "../sdk/manager-client.ts";
import type { ClientWire } from "./wire.ts";

export interface Follower {
  /** Connections that the manager knew of us when the stream was first opened, by our own id. */
  readonly adopted: Promise<ReadonlyMap<string, Connection>>;
  /** From now on these wires get the news. */
  follow(wires: readonly ClientWire[]): void;
}

export interface FollowOptions {
  /** Own path segment name. */
  readonly name: string;
  /** Own network namespace, as in the requests: wires of an earlier life end there. */
  readonly netnsUrl: string;
  readonly log: Logger;
}

export function followManager(
  manager: Pick<Manager, "monitor">,
  { name, netnsUrl, log }: FollowOptions,
  signal: AbortSignal,
): Follower {
  let wires = new Map<string, ClientWire>();
  const adopted = Promise.withResolvers<ReadonlyMap<string, Connection>>();
  void run();
  return {
    adopted: adopted.promise,
    follow(list) {
      wires = new Map(list.map((wire) => [wire.id, wire]));
    },
  };

  async function run(): Promise<void> {
    const backoff = createBackoff();
    const selector = create(MonitorScopeSelectorSchema, { pathSegments: [{ name }] });
    while (!signal.aborted) {
      try {
        for await (const event of manager.monitor(selector, signal)) {
          backoff.reset();
          handle(event);
        }
      } catch (err) {
        if (!signal.aborted) log.info({ err }, "monitor stream broke, opening it again");
      }
      if (!signal.aborted) await delay(backoff.next(), signal).catch(() => undefined);
    }
    adopted.resolve(new Map());
  }

  function handle(event: ConnectionEvent): void {
    const shown = Object.values(event.connections).flatMap((connection) => ownView(connection, name));
    if (event.type === ConnectionEventType.INITIAL_STATE_TRANSFER) {
      const ofOurs = shown.filter(({ mechanism }) => mechanism?.parameters["inodeURL"] === netnsUrl);
      adopted.resolve(new Map(ofOurs.map((connection) => [connection.id, connection])));
      // A manager that restarted does not know our wires; a refresh makes them known again.
      for (const wire of wires.values()) {
        // Nobody told who waits for somebody to serve what happened meanwhile.
        if (wire.connection === undefined && shown.every(({ id }) => id !== wire.id)) wire.tell("retry");
        if (wire.connection !== undefined && !shown.some((connection) => isWire(wire, connection)))
          wire.tell("refresh");
      }
    }
    for (const connection of shown) {
      const wire = wires.get(connection.id);
      if (wire !== undefined) tellWire(wire, event.type, connection);
    }
  }
}

/** Another process with our name and identity has wires with our ids; the manager's id tells them apart. */
function isWire({ id, connection }: ClientWire, shown: Connection): boolean {
  const managersId = (of: Connection | undefined) => of?.path?.pathSegments[1]?.id;
  return id === shown.id && connection !== undefined && managersId(connection) === managersId(shown);
}

function tellWire(wire: ClientWire, type: ConnectionEventType, connection: Connection): void {
  const wish = wishOf(connection);
  if (wish === "retry") {
    wire.tell("retry"); // also of a wire that nobody has yet
    return;
  }
  const isOurs = isWire(wire, connection);
  if (type === ConnectionEventType.DELETE || connection.state === State.DOWN) {
    // Else it is said of the endpoint that the wire has just left, or of one whose answer has not arrived yet.
    const isNow = connection.networkServiceEndpointName === wire.connection?.networkServiceEndpointName;
    if (isOurs && isNow) wire.tell("down");
    else wire.tell("down", connection);
  } else if (!isOurs) return;
  else if (wish === "reselect") wire.tell("reselect");
  else if (connection.state === State.REFRESH_REQUESTED) wire.tell("refresh");
}

/** The manager's connection as ours: index and id of our segment. Only what the manager next to us says counts. */
function ownView(connection: Connection, name: string): Connection[] {
  const own = connection.path?.pathSegments[0];
  if (own?.name !== name || connection.path?.index !== 1) return [];
  const view = clone(ConnectionSchema, connection);
  if (view.path !== undefined) view.path.index = 0;
  view.id = own.id;
  return [view];
}
