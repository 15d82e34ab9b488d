/** Names of the kernel's error numbers (uapi/asm-generic/errno.h), as libuv spells them. */
import { getSystemErrorMap } from "node:util";

/** Made anew by Node at each call, and asked for with each read that finds nothing. */
const known = getSystemErrorMap();

/** Name of a positive errno (`ENOENT`), or `E<number>`. 95 is `ENOTSUP`, also where the kernel says EOPNOTSUPP. */
export function errnoName(errno: number): string {
  return known.get(-errno)?.[0] ?? `E${errno}`;
}

/** What it means, in words. */
export function errnoText(errno: number): string {
  return known.get(-errno)?.[1] ?? "unknown error";
}
