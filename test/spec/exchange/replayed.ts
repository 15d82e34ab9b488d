/** Which components of a recording are replayed, and by what. */
import { startForwarder } from "./forwarder.ts";
import { startClient } from "./nsc.ts";
import { startEndpoint } from "./nse.ts";
import { startManager } from "./nsmgr.ts";
import { startManagerProxy, startRegistryProxy } from "./proxies.ts";
import { startRegistry } from "./registry.ts";
import type { Start } from "./roles.ts";

const OURS: ReadonlyMap<string, Start> = new Map([
  ["registry", startRegistry],
  ["nsmgr", startManager],
  ["forwarder", startForwarder],
  ["nse", startEndpoint],
  ["nsc", startClient],
  ["nsmgr-proxy", startManagerProxy],
  ["registry-proxy", startRegistryProxy],
]);

/** Undefined for a role that we do not have. */
export function startOf(role: string): Start | undefined {
  return OURS.get(role);
}

/** `admin`: somebody who calls by hand. */
export const NOT_OURS: ReadonlySet<string> = new Set(["admin"]);
