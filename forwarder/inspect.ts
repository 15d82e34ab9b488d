/** What the forwarder tells its manager of one wire: what the kernel counts on its devices (docs/protocol.md, "Looking"). */
import { create } from "@bufbuild/protobuf";
import { InterfaceCountersSchema, WireDescriptionSchema } from "../api/gen/admin_pb.js";
import type { Wires } from "../api/gen/admin_pb.js";
import { messageOf } from "../sdk/errors.ts";
import type { Handlers } from "../sdk/grpc/handlers.ts";
import type { Dataplane, EndStats } from "./dataplane.ts";

export interface InspectOptions {
  /** Own path segment name. */
  readonly name: string;
  readonly dataplane: Pick<Dataplane, "stats">;
}

/** Reads when it is asked; a wire without devices here has none to tell of. What cannot be read is a fault of the answer. */
export function wiresHandlers({ name, dataplane }: InspectOptions): Handlers<typeof Wires> {
  return {
    async describeWire({ id }) {
      const description = create(WireDescriptionSchema);
      try {
        const ends = (await dataplane.stats([id])).get(id) ?? [];
        description.interfaces = ends.map((end) => countersOf(name, end));
      } catch (error) {
        description.faults.push(`forwarder ${name} cannot read counters: ${messageOf(error)}`);
      }
      return description;
    },
  };
}

function countersOf(forwarder: string, end: EndStats) {
  return create(InterfaceCountersSchema, {
    forwarder,
    side: end.side,
    name: end.interfaceName,
    rxBytes: BigInt(end.rxBytes),
    rxPackets: BigInt(end.rxPackets),
    rxDropped: BigInt(end.rxDropped),
    rxErrors: BigInt(end.rxErrors),
    txBytes: BigInt(end.txBytes),
    txPackets: BigInt(end.txPackets),
    txDropped: BigInt(end.txDropped),
    txErrors: BigInt(end.txErrors),
  });
}
