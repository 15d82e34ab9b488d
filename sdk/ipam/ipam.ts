/** Address management of an endpoint: what every kind promises, and what they share (docs/protocol.md, "Addresses (IPAM)"). */
import type { IPContext } from "../../api/gen/connectioncontext_pb.js";
import { NsmError } from "../errors.ts";
import { parsePrefix, rangeOf } from "../prefix.ts";
import type { IpRange, Prefix } from "../prefix.ts";
import { mergeRanges } from "./pool.ts";

/** What one request took, until it is known whether the rest of the chain succeeds. Call one of the two, once. */
export interface Lease {
  /** Keeps it. `answer`: the context that goes back to the client, default the request's. */
  commit(answer?: IPContext): void;
  /** Gives back what this request took; what the connection had before stays its own. */
  rollback(): void;
}

export interface Client {
  /** The client brings DNS configurations: it is an endpoint of the same virtual network (vL3). */
  readonly bringsDns?: boolean;
}

export interface Ipam {
  /**
   * Adds addresses and routes to the context; a known connection keeps what it has unless it is excluded now. Addresses of
   * the context that are free are given again: a restarted endpoint finds its connections unchanged.
   * Throws RESOURCE_EXHAUSTED `ipam-exhausted`; nothing is taken then, and the context is as it was.
   */
  request(id: string, ipContext: IPContext, client?: Client): Lease;
  /** Frees what the connection has. Unknown ids are fine. */
  close(id: string): void;
}

/** The members that an Ipam changes. */
export function copyOf(context: IPContext): Partial<IPContext> {
  return {
    srcIpAddrs: [...context.srcIpAddrs],
    dstIpAddrs: [...context.dstIpAddrs],
    srcRoutes: [...context.srcRoutes],
    dstRoutes: [...context.dstRoutes],
  };
}

/** Parses configured prefixes. Throws INVALID_ARGUMENT `bad-prefix`, also when there is none. */
export function parsePrefixes(texts: readonly string[]): readonly Prefix[] {
  if (texts.length === 0) throw badPrefix("", "give at least one, such as 172.16.0.0/16");
  return texts.map((text) => {
    const prefix = parsePrefix(text);
    if (prefix === undefined)
      throw badPrefix(text, "expected an address and a length, such as 172.16.0.0/16");
    return prefix;
  });
}

function badPrefix(text: string, remedy: string): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-prefix", `prefix ${JSON.stringify(text)}: ${remedy}`);
}

/** Excluded prefixes of a request. What is no prefix, and bare addresses, exclude nothing. */
export function exclusionsOf(context: IPContext): readonly IpRange[] {
  const prefixes = context.excludedPrefixes.map((text) => parsePrefix(text));
  return mergeRanges(prefixes.filter((prefix) => prefix !== undefined).map(rangeOf));
}

/** `prefixes`: of the pools that were tried. */
export function exhausted(prefixes: readonly string[], excluded: readonly string[]): NsmError {
  const but = excluded.length === 0 ? "" : ` outside the ${excluded.length} excluded prefixes of the request`;
  return new NsmError(
    "RESOURCE_EXHAUSTED",
    "ipam-exhausted",
    `no address left in ${prefixes.join(", ")}${but}: close connections or give the endpoint a larger prefix`,
  );
}
