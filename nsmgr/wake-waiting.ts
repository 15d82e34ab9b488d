/** Remembers clients whose Requests failed, until somebody registers who would serve them (docs/protocol.md, "Waiting"). */
import { create } from "@bufbuild/protobuf";
import { ConnectionSchema, State } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import type { CallContext, Element } from "../sdk/chain.ts";
import { CHOICE_REMARK } from "../sdk/elements/monitor.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import { SOMEBODY_SERVES } from "../sdk/elements/wishes.ts";
import { NsmError } from "../sdk/errors.ts";
import type { CodeName } from "../sdk/errors.ts";
import type { Waiting } from "./waiting.ts";

/** What nobody who registers would mend. */
const OWN_FAULT: ReadonlySet<CodeName> = new Set([
  "INVALID_ARGUMENT",
  "PERMISSION_DENIED",
  "UNAUTHENTICATED",
  "ABORTED",
  "CANCELLED",
]);

export function wakeWaiting(waiting: Waiting): Element {
  return (next) => ({
    async request(request, ctx) {
      const asked = connectionOf(request);
      const key = keyOf(asked, ctx);
      if (key === undefined) return await next.request(request, ctx);
      // Others behind change what is asked for.
      const [news, labels] = [newsFor(asked), { ...asked.labels }];
      const { networkService: service } = asked;
      waiting.asks(key);
      try {
        const response = await next.request(request, ctx);
        waiting.drop(key);
        return response;
      } catch (error) {
        const isOver = ctx.signal.aborted || (error instanceof NsmError && OWN_FAULT.has(error.code));
        if (isOver) waiting.drop(key);
        else waiting.add(key, { service, labels, owner: ctx.peer?.spiffeId ?? "", news });
        throw error;
      }
    },
    async close(connection, ctx) {
      const key = keyOf(connection, ctx);
      if (key !== undefined) waiting.drop(key);
      await next.close(connection, ctx);
    },
  });
}

/** Of a client that asks this manager itself; other callers wait for nobody. */
function keyOf({ path }: Connection, { peer }: CallContext): string | undefined {
  const client = path?.pathSegments[0];
  if (path?.index !== 1 || client === undefined) return undefined;
  return JSON.stringify([peer?.spiffeId, client.name, client.id]);
}

/** Not what the monitor shows of the connection, which there need not be: only whom it is about, and that it may be asked for again. */
function newsFor({ id, networkService, path }: Connection): Connection {
  const [client, own] = path?.pathSegments ?? [];
  return create(ConnectionSchema, {
    id,
    networkService,
    state: State.RESELECT_REQUESTED,
    path: {
      index: 1,
      pathSegments: [
        { name: client?.name ?? "", id: client?.id ?? "" },
        { name: own?.name ?? "", id: own?.id ?? "", metrics: { [CHOICE_REMARK]: SOMEBODY_SERVES } },
      ],
    },
  });
}
