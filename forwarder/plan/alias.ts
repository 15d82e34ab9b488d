/** The mark on a device that makes the kernel our journal: `nsm:1:<wire id>:<side>:<binding>`, each part percent-encoded. */
import { NsmError } from "../../sdk/errors.ts";
import type { Side } from "../wire.ts";

/** IFALIASZ of linux/if.h is 256 with the NUL. */
const LONGEST = 255;
const VERSION = "nsm:1";

export interface Mark {
  readonly wireId: string;
  readonly side: Side;
  readonly binding: string;
}

/** Throws INVALID_ARGUMENT `bad-wire-id` when id and binding do not fit into an alias. */
export function formatAlias({ wireId, side, binding }: Mark): string {
  const alias = [VERSION, encodeURIComponent(wireId), side, encodeURIComponent(binding)].join(":");
  if (wireId === "" || alias.length > LONGEST)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-wire-id",
      `connection id ${JSON.stringify(wireId.slice(0, 80))} is empty or too long to mark a device with (${LONGEST} bytes with its binding)`,
    );
  return alias;
}

/** Undefined for an alias that is not ours. */
export function parseAlias(alias: string): Mark | undefined {
  const match = /^nsm:1:([^:]+):(client|endpoint):([^:]*)$/.exec(alias);
  if (match === null) return undefined;
  try {
    const wireId = decodeURIComponent(match[1] ?? "");
    const binding = decodeURIComponent(match[3] ?? "");
    return { wireId, side: match[2] === "client" ? "client" : "endpoint", binding };
  } catch {
    // Written by somebody else: a malformed percent code.
    return undefined;
  }
}
