/** The firewall's variables. */
import { duration, list, oneOf, optionalText, path } from "../../sdk/config.ts";
import type { ConfigOf, Table } from "../../sdk/config.ts";
import { passThroughTable } from "../passthrough/config.ts";

export const table = {
  ...passThroughTable,
  serviceNames: list("NSM_SERVICE_NAMES", "", "network services that the endpoint offers"),
  serviceName: optionalText("NSM_SERVICE_NAME", "", "one more, as the firewall of the Go mesh calls it"),
  payload: oneOf("IP")(
    "NSM_PAYLOAD",
    "IP",
    "payload of the network services that it registers: it filters packets, not frames",
  ),
  aclConfigPath: path(
    "NSM_ACL_CONFIG_PATH",
    "/etc/firewall/config.yaml",
    "file with the rules, read again when it changes; a fault in it leaves the rules as they are",
  ),
  countersEveryMs: duration(
    "NSM_FIREWALL_LOG_INTERVAL",
    "1m",
    "how often counters that changed are logged; 0 = never",
  ),
} as const satisfies Table;

export type FirewallConfig = ConfigOf<typeof table>;
