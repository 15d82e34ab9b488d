/** The pass-through endpoint's variables. */
import type { ConfigOf, Table } from "../../sdk/config.ts";
import { duration, oneOf } from "../../sdk/config.ts";
import { endpointTable } from "../config.ts";

/** Those of every endpoint that is a client, too. */
export const passThroughTable = {
  ...endpointTable,
  payload: oneOf("IP", "ETHERNET")("NSM_PAYLOAD", "IP", "payload of the network services that it registers"),
  requestTimeoutMs: duration("NSM_REQUEST_TIMEOUT", "15s", "for one Request to the next endpoint"),
} as const satisfies Table;

export const table = passThroughTable;

export type PassThroughConfig = ConfigOf<typeof passThroughTable>;
