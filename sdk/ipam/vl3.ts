/** Addresses of a vL3 network: many endpoints, each with its prefix of one global network (docs/protocol.md). */
import { create } from "@bufbuild/protobuf";
import { IPContextSchema } from "../../api/gen/connectioncontext_pb.js";
import type { IPContext } from "../../api/gen/connectioncontext_pb.js";
import { NsmError } from "../errors.ts";
import {
  bitsOf,
  contains,
  formatAddress,
  formatPrefix,
  hostPrefix,
  parsePrefix,
  rangeOf,
} from "../prefix.ts";
import type { IpAddress, Prefix } from "../prefix.ts";
import { addAddress, addRoute, dropInside } from "./context.ts";
import { exhausted, parsePrefixes } from "./ipam.ts";
import type { Ipam } from "./ipam.ts";
import { IpPool } from "./pool.ts";

export interface Vl3Ipam extends Ipam {
  /**
   * Begins anew with another prefix; connections move to it when they are refreshed.
   * Throws INVALID_ARGUMENT `bad-prefix`.
   */
  reset(prefix: string, excluded: readonly string[]): void;
  /** True for an address of the endpoint's prefix. */
  owns(address: IpAddress): boolean;
}

/** What one prefix stands for. */
interface Network {
  readonly prefix: Prefix;
  readonly pool: IpPool;
  /** The endpoint's own address: the prefix's first. */
  readonly own: IpAddress;
  /** The whole vL3 network: half of the bits. */
  readonly global: Prefix;
}

interface Lent {
  readonly network: Network;
  readonly address: IpAddress;
}

/** Not usable before the first `reset` (FAILED_PRECONDITION `ipam-not-ready`). */
export function createVl3(): Vl3Ipam {
  let network: Network | undefined;
  const lent = new Map<string, Lent>();
  return {
    reset(prefix, excluded) {
      network = createNetwork(prefix, excluded);
    },
    owns: (address) => network !== undefined && contains(rangeOf(network.prefix), address),
    request(id, context, client) {
      if (network === undefined) throw notReady();
      const now = network;
      const before = lent.get(id);
      const isCurrent = before?.network === now;
      const needsOne = before !== undefined || !bringsAddress(context, now, client?.bringsDns === true);
      const fresh = needsOne && !isCurrent ? lend(now) : undefined;
      if (fresh !== undefined) {
        if (before !== undefined) dropInside(context, rangeOf(before.network.global));
        addAddress(context.srcIpAddrs, formatPrefix(hostPrefix(fresh.address)));
        lent.set(id, fresh);
      }
      addNetwork(context, now);
      return {
        commit: (answer = context) =>
          addRoute(answer.srcRoutes, formatPrefix(now.global), formatAddress(now.own)),
        rollback() {
          if (fresh === undefined || lent.get(id) !== fresh) return;
          now.pool.free(fresh.address);
          if (before === undefined) lent.delete(id);
          else lent.set(id, before);
        },
      };
    },
    close(id) {
      const had = lent.get(id);
      had?.network.pool.free(had.address);
      lent.delete(id);
    },
  };
}

function createNetwork(text: string, excluded: readonly string[]): Network {
  const [prefix] = parsePrefixes([text]);
  if (prefix === undefined) throw notReady();
  const range = rangeOf(prefix);
  const own = { family: prefix.family, address: range.first };
  const pool = new IpPool([range]);
  pool.take(own);
  if (excluded.length > 0) for (const out of parsePrefixes(excluded)) pool.remove(rangeOf(out));
  return {
    prefix: { ...own, length: prefix.length },
    pool,
    own,
    global: { ...own, length: bitsOf(prefix.family) / 2 },
  };
}

/** Another endpoint of the network comes with its own address, and is known by its DNS configuration. */
function bringsAddress(context: IPContext, { own }: Network, bringsDns: boolean): boolean {
  return bringsDns && context.srcIpAddrs.some((text) => parsePrefix(text)?.family === own.family);
}

function lend(network: Network): Lent {
  const address = network.pool.takeLowest();
  if (address === undefined) throw exhausted([formatPrefix(network.prefix)], []);
  return { network, address };
}

function addNetwork(context: IPContext, { own, prefix }: Network): void {
  const [host, nextHop] = [formatPrefix(hostPrefix(own)), formatAddress(own)];
  addRoute(context.srcRoutes, host, nextHop);
  addRoute(context.srcRoutes, formatPrefix(prefix), nextHop);
  for (const src of context.srcIpAddrs) addRoute(context.dstRoutes, src);
  addAddress(context.dstIpAddrs, host);
}

function notReady(): NsmError {
  return new NsmError(
    "FAILED_PRECONDITION",
    "ipam-not-ready",
    "the vL3 endpoint has no prefix yet: its prefix server has not answered",
  );
}

/**
 * Several vL3 pools (dual stack) whose clients keep nothing from another network: a request whose endpoint addresses are all
 * foreign starts with an empty context.
 */
export function createStrictVl3(parts: readonly Vl3Ipam[], group: Ipam): Ipam {
  const isOurs = (text: string) => {
    const address = parsePrefix(text);
    return address !== undefined && parts.some((part) => part.owns(address));
  };
  return {
    request(id, context, client) {
      if (context.dstIpAddrs.length > 0 && !context.dstIpAddrs.some(isOurs))
        Object.assign(context, create(IPContextSchema));
      return group.request(id, context, client);
    },
    close: (id) => group.close(id),
  };
}
