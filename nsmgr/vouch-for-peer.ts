/** Tells the forwarder which process asks: its pid stands for its network namespace (docs/protocol.md, "Namespaces"). */
import { create } from "@bufbuild/protobuf";
import { MechanismSchema } from "../api/gen/connection_pb.js";
import type { Mechanism } from "../api/gen/connection_pb.js";
import type { CallContext, Element } from "../sdk/chain.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import { NsmError } from "../sdk/errors.ts";
import { PEER_PID } from "../sdk/mechanisms/kernel.ts";

/** Whatever a caller wrote as `peerPID` is overwritten or removed; the answer does not show it. */
export function vouchForPeer(): Element {
  return (next) => ({
    async request(request, ctx) {
      const connection = connectionOf(request);
      for (const mechanism of request.mechanismPreferences) vouch(mechanism, ctx);
      if (connection.mechanism !== undefined) vouch(connection.mechanism, ctx);
      const response = await next.request(request, ctx);
      refuseDeadPeer(ctx);
      if (response.mechanism !== undefined) delete response.mechanism.parameters[PEER_PID];
      return response;
    },
    async close(connection, ctx) {
      // A Close needs no mechanism, but the forwarder must learn who asks.
      if (ctx.peer?.process !== undefined) {
        connection.mechanism ??= create(MechanismSchema, { type: "KERNEL" });
        connection.mechanism.cls = "LOCAL";
      }
      if (connection.mechanism !== undefined) vouch(connection.mechanism, ctx);
      await next.close(connection, ctx);
    },
  });
}

function vouch(mechanism: Mechanism, ctx: CallContext): void {
  const pid = ctx.peer?.process?.pid;
  if (pid === undefined || mechanism.cls !== "LOCAL") delete mechanism.parameters[PEER_PID];
  else mechanism.parameters[PEER_PID] = String(pid);
}

/** Between the stamp and the answer the process must not have ended: its pid could be somebody else's by now. */
function refuseDeadPeer(ctx: CallContext): void {
  if (ctx.peer?.process === undefined || ctx.peer.process.isAlive()) return;
  throw new NsmError(
    "CANCELLED",
    "caller-gone",
    `process ${ctx.peer.process.pid} ended while it asked for a wire`,
  );
}
