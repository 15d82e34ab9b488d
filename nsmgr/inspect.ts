/** What the manager tells operators, and owners of wires, of one wire: its events, and what its forwarder reads in the kernel (docs/protocol.md, "Looking"). */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { WireDescriptionSchema, Wires } from "../api/gen/admin_pb.js";
import type { WireDescription } from "../api/gen/admin_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import type { History } from "../sdk/elements/history.ts";
import { OPERATOR } from "../sdk/elements/monitor.ts";
import type { MonitorStore } from "../sdk/elements/monitor.ts";
import { operatorView } from "../sdk/elements/operator-view.ts";
import { viewerOf } from "../sdk/elements/serve.ts";
import type { IsOperator } from "../sdk/elements/serve.ts";
import type { NextHop } from "../sdk/elements/target.ts";
import { NsmError, messageOf } from "../sdk/errors.ts";
import type { Handlers } from "../sdk/grpc/handlers.ts";
import type { SessionPool } from "../sdk/grpc/sessions.ts";
import { tokenMetadata } from "../sdk/hops.ts";
import type { TokenMinter } from "../sdk/token.ts";

/** A forwarder that does not answer is a line of the answer, soon enough for the person who waits. */
const FORWARDER_WITHIN_MS = 3000;

export interface InspectOptions {
  readonly store: MonitorStore;
  readonly history: History;
  readonly isOperator: IsOperator;
  readonly pool: SessionPool;
  readonly minter: TokenMinter;
  /** A forwarder of this node. */
  readonly forwarderNamed: (name: string) => NextHop | undefined;
}

/** Throws NOT_FOUND `wire-not-found`, also for wires that the caller may not see: their ids are nobody else's business. */
export function wiresHandlers(options: InspectOptions): Handlers<typeof Wires> {
  const { store, history, isOperator } = options;
  return {
    async describeWire({ id }, caller) {
      const viewer = viewerOf(caller, isOperator);
      const events = history.of(id);
      const known = store.get(id);
      const isOver = known === undefined && events.length > 0;
      if (!store.maySee(id, viewer) && !(isOver && viewer === OPERATOR))
        throw notFound(id, caller.peer.spiffeId);
      const description = create(WireDescriptionSchema, {
        events: events.map(({ timeMs, ...event }) => ({ ...event, time: timestampFromMs(timeMs) })),
      });
      if (known === undefined) return description;
      description.connection = operatorView(known);
      await askForwarder(options, known, description, caller.signal);
      return description;
    },
  };
}

function notFound(id: string, spiffeId: string): NsmError {
  return new NsmError(
    "NOT_FOUND",
    "wire-not-found",
    `no wire ${JSON.stringify(id.slice(0, 128))} here that ${spiffeId} may see: its own, or any as an operator (NSM_OPERATOR_IDS of the manager)`,
  );
}

/** The forwarder behind us is part of the path; a wire that passes none of this node has nothing to read here. */
async function askForwarder(
  { pool, minter, forwarderNamed }: InspectOptions,
  { path }: Connection,
  description: WireDescription,
  signal: AbortSignal,
): Promise<void> {
  const segment = path?.pathSegments[path.index + 1];
  const hop = segment === undefined ? undefined : forwarderNamed(segment.name);
  if (segment === undefined || hop === undefined) return;
  try {
    const { response } = await pool.unary(
      hop,
      Wires.method.describeWire,
      { $typeName: "nsm.admin.v1.DescribeWireRequest", id: segment.id },
      { signal, timeoutMs: FORWARDER_WITHIN_MS, metadata: tokenMetadata(minter) },
    );
    description.interfaces = response.interfaces;
    description.faults = response.faults;
  } catch (error) {
    description.faults.push(`forwarder ${segment.name}: ${messageOf(error)}`);
  }
}
