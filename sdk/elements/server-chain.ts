/** The first elements of every server of NetworkService, in their order (docs/protocol.md, "Chains"). */
import { randomUUID } from "node:crypto";
import { chain } from "../chain.ts";
import type { CallContext, Chain, Element } from "../chain.ts";
import type { Connection, Mechanism } from "../../api/gen/connection_pb.js";
import { claimOf } from "../claim.ts";
import type { Clock } from "../clock.ts";
import type { Logger } from "../log.ts";
import type { TokenMinter } from "../token.ts";
import { authorize } from "./authorize.ts";
import { begin } from "./begin.ts";
import type { WithEvents } from "./begin.ts";
import { checkLimits } from "./check-limits.ts";
import { measure } from "./measure.ts";
import { monitor } from "./monitor.ts";
import type { MonitorStore } from "./monitor.ts";
import { timeout } from "./timeout.ts";
import { updateToken } from "./tokens.ts";
import { connectionOf, updatePath } from "./update-path.ts";

export interface ServerChainOptions {
  /** Own path segment name. */
  readonly name: string;
  readonly minter: TokenMinter;
  readonly clock: Clock;
  readonly store: MonitorStore;
  readonly log: Logger;
  readonly newId?: () => string;
  /** See `BeginOptions.closeUnknown`. */
  readonly closeUnknown?: boolean;
  /** What only this daemon can tell of a caller. Throws to refuse, before anything changes. */
  readonly refuseStranger?: RefuseStranger;
}

/** `offers`: the mechanisms that a Request prefers. */
export type RefuseStranger = (
  connection: Connection,
  ctx: CallContext,
  offers?: readonly Mechanism[],
) => void;

export function serverChain(options: ServerChainOptions): Chain<WithEvents> {
  const { name, minter, clock, store, log, newId = randomUUID, refuseStranger = () => undefined } = options;
  return chain()
    .use("checkLimits", checkLimits()) // before anything is kept of the message
    .use("updatePath", updatePath(name, newId)) // the id that everything below goes by
    .use("refuseStrangers", refuseStrangers(refuseStranger)) // a refused Close must not stop what runs
    .use("begin", begin({ owner: ownerOf, log, clock, closeUnknown: options.closeUnknown ?? false }))
    .use("measure", measure(clock)) // once it is this connection's turn
    .use("updateToken", updateToken(minter)) // before the policies read the tokens
    .use("authorize", authorize(clock))
    .use("timeout", timeout(clock))
    .use("monitor", monitor(store));
}

function refuseStrangers(refuse: RefuseStranger): Element {
  return (next) => ({
    async request(request, ctx) {
      refuse(connectionOf(request), ctx, request.mechanismPreferences);
      return await next.request(request, ctx);
    },
    async close(connection, ctx) {
      refuse(connection, ctx);
      await next.close(connection, ctx);
    },
  });
}

function ownerOf(connection: Connection, ctx: CallContext): string {
  return claimOf(connection, ctx.peer?.spiffeId ?? "");
}
