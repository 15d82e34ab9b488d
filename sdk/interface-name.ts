/** Which names a network interface of the mesh may have: a whitelist, narrower than the kernel's own rule. */
import { NsmError } from "./errors.ts";

const ALLOWED = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$/;
/** Names that mean something to the kernel or that every pod has. */
const RESERVED = new Set(["all", "default", "lo", "eth0"]);

export const INTERFACE_NAME_RULE =
  "1 to 15 of letters, digits, '_', '.' and '-', beginning with a letter or digit; not only digits; not all, default, lo or eth0";

export function isInterfaceName(name: string): boolean {
  return ALLOWED.test(name) && !RESERVED.has(name) && !/^\d+$/.test(name);
}

/** The name itself. Throws INVALID_ARGUMENT `bad-interface-name`, naming the value and the rule. */
export function checkInterfaceName(name: string): string {
  if (isInterfaceName(name)) return name;
  throw new NsmError(
    "INVALID_ARGUMENT",
    "bad-interface-name",
    `interface name ${JSON.stringify(name.slice(0, 40))} is not allowed: ${INTERFACE_NAME_RULE}`,
  );
}
