/** Tells the forwarder which process asks: its pid stands for its network namespace (docs/protocol.md, "Namespaces"). */
import { create } from "@bufbuild/protobuf";
import { MechanismSchema } from "../api/gen/connection_pb.js";
import type { Mechanism } from "../api/gen/connection_pb.js";
import type { CallContext, Element } from "../sdk/chain.ts";
import type { WithEvents } from "../sdk/elements/begin.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import { NsmError } from "../sdk/errors.ts";
import { PEER_PID } from "../sdk/mechanisms/kernel.ts";

/**
 * Whatever a caller wrote as `peerPID` is overwritten or removed; the answer does not show it. Tunnels end at other nodes'
 * forwarders: nobody else may ask for one. `mayForward`: ids of forwarders.
 */
export function vouchForPeer(mayForward: (spiffeId: string) => boolean): Element<WithEvents, WithEvents> {
  return (next) => ({
    async request(request, ctx) {
      const connection = connectionOf(request);
      refuseTunnels([connection.mechanism, ...request.mechanismPreferences], ctx, mayForward);
      for (const mechanism of request.mechanismPreferences) vouch(mechanism, ctx);
      if (connection.mechanism !== undefined) vouch(connection.mechanism, ctx);
      const response = await next.request(request, ctx);
      if (ctx.peer?.process?.isAlive() === false) {
        // Its pid could be somebody else's by now, and so the wire.
        if (!ctx.established) await next.close(response, ctx);
        throw new NsmError(
          "CANCELLED",
          "caller-gone",
          `process ${ctx.peer.process.pid} ended while it asked for a wire`,
        );
      }
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

function refuseTunnels(
  mechanisms: readonly (Mechanism | undefined)[],
  { peer }: CallContext,
  mayForward: (spiffeId: string) => boolean,
): void {
  const remote = mechanisms.find((mechanism) => mechanism !== undefined && mechanism.cls !== "LOCAL");
  if (remote === undefined || peer === undefined || mayForward(peer.spiffeId)) return;
  throw new NsmError(
    "PERMISSION_DENIED",
    "not-a-forwarder",
    `${peer.spiffeId} may not ask for the tunnel ${remote.type}: forwarders do, whose ids NSM_FORWARDER_IDS of this manager lists`,
  );
}

function vouch(mechanism: Mechanism, ctx: CallContext): void {
  const pid = ctx.peer?.process?.pid;
  if (pid === undefined || mechanism.cls !== "LOCAL") delete mechanism.parameters[PEER_PID];
  else mechanism.parameters[PEER_PID] = String(pid);
}
