/** The environment of endpoints that a supplier starts: its own, but for what two processes cannot share. Pure. */
import type { SupplierConfig } from "./config.ts";

/** Names, sockets, and what only the supplier has a use for. */
const OWN = /^NSM_(SUPPLY_\w+|NAME|LISTEN_ON|METRICS_LISTEN_ON|LABELS)$/;

/** It offers the same services, leaves their definition to the supplier, and goes when nobody needs it. */
export function childEnvironment(
  {
    serviceNames,
    payload,
    idleTimeoutMs,
  }: Pick<SupplierConfig, "serviceNames" | "payload" | "idleTimeoutMs">,
  own: NodeJS.ProcessEnv,
): NodeJS.ProcessEnv {
  const inherited = Object.entries(own).filter(([name]) => !OWN.test(name));
  return {
    ...Object.fromEntries(inherited),
    NSM_SERVICE_NAMES: serviceNames.join(","),
    NSM_PAYLOAD: payload,
    NSM_REGISTER_SERVICE: "false",
    NSM_UNREGISTER_ITSELF: "true",
    NSM_IDLE_TIMEOUT: `${idleTimeoutMs}ms`,
  };
}
