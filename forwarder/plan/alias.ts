/** The mark on a device that makes the kernel our journal: `nsm:1:<wire id>:<side>:<binding>[:<owner>]`, each part percent-encoded. */
import { NsmError } from "../../sdk/errors.ts";
import type { Side } from "../wire.ts";

/** IFALIASZ of linux/if.h is 256 with the NUL. */
const LONGEST = 255;
const VERSION = "nsm:1";

export interface Mark {
  readonly wireId: string;
  readonly side: Side;
  readonly binding: string;
  /** Whose process asked for the wire, where that is known. */
  readonly owner?: string;
}

/** Throws INVALID_ARGUMENT `bad-wire-id` when id and binding do not fit into an alias; an owner for whom there is no room is left off. */
export function formatAlias({ wireId, side, binding, owner }: Mark): string {
  const alias = [VERSION, ...[wireId, side, binding].map(encodeURIComponent)].join(":");
  if (wireId === "" || alias.length > LONGEST)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-wire-id",
      `connection id ${JSON.stringify(wireId.slice(0, 80))} is empty or too long to mark a device with (${LONGEST} bytes with its binding)`,
    );
  const whole = owner === undefined ? alias : `${alias}:${encodeURIComponent(owner)}`;
  return whole.length > LONGEST ? alias : whole;
}

/** Undefined for an alias that is not ours. */
export function parseAlias(alias: string): Mark | undefined {
  const match = /^nsm:1:([^:]+):(client|endpoint):([^:]*)(?::([^:]*))?$/.exec(alias);
  if (match === null) return undefined;
  try {
    const wireId = decodeURIComponent(match[1] ?? "");
    const binding = decodeURIComponent(match[3] ?? "");
    const owner = match[4] === undefined ? {} : { owner: decodeURIComponent(match[4]) };
    return { wireId, side: match[2] === "client" ? "client" : "endpoint", binding, ...owner };
  } catch {
    // Written by somebody else: a malformed percent code.
    return undefined;
  }
}

/** Of one wire, side and claim: a client that was started again is another owner of the same device. */
export function isSameMark(alias: string, wanted: string): boolean {
  const [a, b] = [alias, wanted].map(parseAlias);
  if (a === undefined || b === undefined) return alias === wanted;
  return a.wireId === b.wireId && a.side === b.side && a.binding === b.binding;
}
