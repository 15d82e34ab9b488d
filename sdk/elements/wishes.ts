/** What a manager asks of a client by its monitor stream, beside what has happened (docs/protocol.md, "Wires that move", "Waiting"). */
import { State } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { CHOICE_REMARK } from "./monitor.ts";

/** The remark with which whoever waits for somebody to serve is told that it is worth another try. */
export const SOMEBODY_SERVES = "somebody-serves";

/** `reselect`: the wire is wanted elsewhere. `retry`: a Request that failed may succeed now. */
export type ManagersWish = "reselect" | "retry";

/** What the manager wants, as its client sees the connection. Go managers show the state after any choice; ours gives a reason when it asks. */
export function wishOf({ state, path }: Connection): ManagersWish | undefined {
  const why = path?.pathSegments[1]?.metrics[CHOICE_REMARK];
  if (state !== State.RESELECT_REQUESTED || why === undefined) return undefined;
  return why === SOMEBODY_SERVES ? "retry" : "reselect";
}
