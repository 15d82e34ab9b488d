/** Names of the devices of an endpoint that passes on: they say which side they are for. */
import { randomInt } from "node:crypto";
import { isInterfaceName } from "../../sdk/interface-name.ts";

/** Beginnings: of those towards clients, and those towards the service. */
export const UP_PREFIX = "in-";
export const DOWN_PREFIX = "out-";

/** Random; at most 15 bytes, as linux/if.h wants it. */
export function deviceName(prefix: string): string {
  return `${prefix}${randomInt(36 ** 6).toString(36)}${randomInt(36 ** 4).toString(36)}`;
}

/** True for a name as we choose it: rules of the firewall and the kernel's routing go by it. */
export function isUpName(name: string): boolean {
  return isInterfaceName(name) && name.startsWith(UP_PREFIX) && name.length > UP_PREFIX.length;
}
