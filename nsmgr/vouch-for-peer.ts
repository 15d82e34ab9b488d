/** Tells the forwarder which process asks: its pid stands for its network namespace (docs/protocol.md, "Namespaces"). */
import { create } from "@bufbuild/protobuf";
import { MechanismSchema } from "../api/gen/connection_pb.js";
import type { Mechanism } from "../api/gen/connection_pb.js";
import type { CallContext, Element } from "../sdk/chain.ts";
import type { WithEvents } from "../sdk/elements/begin.ts";
import { connectionOf, leadsElsewhere } from "../sdk/elements/update-path.ts";
import { NsmError } from "../sdk/errors.ts";
import { KERNEL_TYPE, NO_PEER_PID, PEER_PID } from "../sdk/mechanisms/kernel.ts";

/**
 * Whatever a caller wrote as `peerPID` is overwritten or removed; the answer does not show it. A KERNEL mechanism always leaves
 * with one: its absence is the sign of a manager that does not vouch. Tunnels end at other nodes'
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
        const why = `process ${ctx.peer.process.pid} ended while it asked for a wire`;
        // Its pid could be somebody else's by now, and so the wire.
        const isMoved = ctx.previous !== undefined && leadsElsewhere(ctx.previous, response);
        if (!ctx.established || isMoved) await next.close(response, ctx);
        if (isMoved) void ctx.events.close(why);
        throw new NsmError("CANCELLED", "caller-gone", why);
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
      // What the manager decides by itself names no process, and no lack of one.
      if (connection.mechanism !== undefined && ctx.peer !== undefined) vouch(connection.mechanism, ctx);
      else delete connection.mechanism?.parameters[PEER_PID];
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
  const { parameters, cls, type } = mechanism;
  const pid = cls === "LOCAL" ? ctx.peer?.process?.pid : undefined;
  if (pid !== undefined) parameters[PEER_PID] = String(pid);
  else if (type === KERNEL_TYPE) parameters[PEER_PID] = NO_PEER_PID;
  else delete parameters[PEER_PID];
}
