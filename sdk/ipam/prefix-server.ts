/** Prefixes for the endpoints of one vL3 network: service `ipam.IPAM` without its transport (docs/protocol.md). */
import { Type } from "../../api/gen/ipam_pb.js";
import type { PrefixRequest } from "../../api/gen/ipam_pb.js";
import { NsmError } from "../errors.ts";
import { formatPrefix, parsePrefix, rangeOf } from "../prefix.ts";
import type { Prefix } from "../prefix.ts";
import { exhausted, parsePrefixes } from "./ipam.ts";
import { IpPool, mergeRanges } from "./pool.ts";

/** One endpoint's stream. */
export interface PrefixStream {
  /**
   * The prefix that ALLOCATE yields; undefined for DELETE.
   * Throws RESOURCE_EXHAUSTED `ipam-exhausted`; INVALID_ARGUMENT `bad-request-type`. The stream ends then.
   */
  handle(request: PrefixRequest): string | undefined;
  /** Returns everything that the stream has. To be called however it ended. */
  end(): void;
}

export interface PrefixServer {
  openStream(): PrefixStream;
}

/** `length`: of the prefixes that it gives out of `prefix`. Throws INVALID_ARGUMENT `bad-prefix`. */
export function createPrefixServer(prefix: string, length: number): PrefixServer {
  const pool = new IpPool(parsePrefixes([prefix]).map(rangeOf));
  return {
    openStream() {
      const given = new Map<string, Prefix>();
      const allocate = (request: PrefixRequest): string => {
        const found = wished(pool, request.prefix) ?? next(pool, length, request.excludePrefixes);
        if (found === undefined) throw exhausted([prefix], request.excludePrefixes);
        pool.remove(rangeOf(found));
        const text = formatPrefix(found);
        given.set(text, found);
        return text;
      };
      const giveBack = (text: string) => {
        const had = given.get(text);
        if (had !== undefined) pool.add(rangeOf(had));
        given.delete(text);
      };
      return {
        handle(request) {
          if (request.type === Type.ALLOCATE) return allocate(request);
          if (request.type !== Type.DELETE) throw badType(request.type);
          giveBack(request.prefix);
          return undefined;
        },
        end() {
          for (const text of given.keys()) giveBack(text);
        },
      };
    },
  };
}

/** The wished prefix if all of it is free. */
function wished(pool: IpPool, text: string): Prefix | undefined {
  const prefix = parsePrefix(text);
  return prefix !== undefined && pool.has(rangeOf(prefix)) ? prefix : undefined;
}

/** From the lowest free address on, as it is. */
function next(pool: IpPool, length: number, excludePrefixes: readonly string[]): Prefix | undefined {
  const excluded = excludePrefixes.map((text) => parsePrefix(text)).filter((prefix) => prefix !== undefined);
  const address = pool.lowest(mergeRanges(excluded.map(rangeOf)));
  return address === undefined ? undefined : { ...address, length };
}

function badType(type: Type): NsmError {
  return new NsmError(
    "INVALID_ARGUMENT",
    "bad-request-type",
    `prefix request of type ${type}: use ALLOCATE or DELETE`,
  );
}
