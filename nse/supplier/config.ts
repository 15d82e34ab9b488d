/** The supplier's variables. */
import { bool, duration, integer, kindOf, oneOf } from "../../sdk/config.ts";
import type { ConfigOf, Table } from "../../sdk/config.ts";
import { endpointTable } from "../config.ts";
import { parseCommand, parseVariables } from "./template.ts";

const command = kindOf("JSON list", parseCommand);
const variables = kindOf("JSON object", parseVariables);

export const table = {
  ...endpointTable,
  payload: oneOf("IP", "ETHERNET")(
    "NSM_PAYLOAD",
    "ETHERNET",
    "payload of the network services that it registers",
  ),
  idleTimeoutMs: duration(
    "NSM_IDLE_TIMEOUT",
    "15s",
    "for the endpoints that it starts: they stop after this long without a connection",
  ),
  command: command(
    "NSM_SUPPLY_COMMAND",
    '["nsm","nse"]',
    "what it starts, without a shell; {{.label}} is a label of the client's, not in the program's name nor in what an interpreter runs",
  ),
  env: variables(
    "NSM_SUPPLY_ENV",
    "{}",
    "variables of what it starts, beside its own (without name, labels, sockets, metrics); {{.label}} as above, not in those that choose code, such as PATH. One endpoint serves all clients for whom command and variables are the same",
  ),
  limit: integer("NSM_SUPPLY_LIMIT", "10", "endpoints at the same time"),
  keep: bool("NSM_SUPPLY_KEEP", "false", "what it started goes on when it ends"),
} as const satisfies Table;

export type SupplierConfig = ConfigOf<typeof table>;
