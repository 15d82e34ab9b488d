/** Policy routes that the endpoint asks its clients to have (docs/protocol.md, "Policy routes"). */
import { create } from "@bufbuild/protobuf";
import { State } from "../api/gen/connection_pb.js";
import {
  ConnectionContextSchema,
  IPContextSchema,
  PolicyRouteSchema,
} from "../api/gen/connectioncontext_pb.js";
import type { PolicyRoute } from "../api/gen/connectioncontext_pb.js";
import { parse } from "yaml";
import { z } from "zod";
import type { Element } from "../sdk/chain.ts";
import type { MonitorStore } from "../sdk/elements/monitor.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { parsePortRange } from "../sdk/ip-context.ts";
import { addAddress } from "../sdk/ipam/context.ts";
import { Limits } from "../sdk/limits.ts";
import { parseIp, parsePrefix } from "../sdk/prefix.ts";

const number = z.union([z.number(), z.string()]).transform(String);
const prefix = z.string().refine((text) => parsePrefix(text) !== undefined, "expected a prefix: 10.0.0.0/8");
const ports = number.refine(isPortRange, "expected a port or two: 80 or 80-90");

const Rules = z
  .array(
    z.strictObject({
      from: prefix.nullish(),
      proto: number
        .refine((text) => /^\d{1,3}$/.test(text) && Number(text) < 256, "expected 0 to 255")
        .nullish(),
      srcport: ports.nullish(),
      dstport: ports.nullish(),
      routes: z
        .array(
          z.strictObject({
            prefix,
            nexthop: z
              .string()
              .refine((text) => parseIp(text) !== undefined, "expected an address")
              .nullish(),
          }),
        )
        .max(Limits.routes)
        .nullish(),
    }),
  )
  .max(Limits.policies)
  .nullish();

/**
 * Reads a YAML list of rules: `from` (prefix), `proto` (number), `srcport`, `dstport` (`80` or `80-90`), `routes` of `prefix` and
 * `nexthop`; a rule without routes is a default route. Throws INVALID_ARGUMENT `bad-policy-routes`.
 */
export function parsePolicyRoutes(text: string): readonly PolicyRoute[] {
  return (readRules(text) ?? []).map(({ from, proto, srcport, dstport, routes }) =>
    create(PolicyRouteSchema, {
      from: from ?? "",
      proto: proto ?? "",
      srcPort: srcport ?? "",
      dstPort: dstport ?? "",
      routes: (routes ?? []).map((route) => ({ prefix: route.prefix, nextHop: route.nexthop ?? "" })),
    }),
  );
}

function readRules(text: string) {
  try {
    return Rules.parse(parse(text));
  } catch (error) {
    const fault = error instanceof z.ZodError ? z.prettifyError(error) : messageOf(error);
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-policy-routes",
      `policy routes: expected a YAML list of rules such as { proto: 6, dstport: 80, routes: [{ prefix: 10.0.0.0/8 }] }: ${fault}`,
    );
  }
}

function isPortRange(text: string): boolean {
  try {
    return parsePortRange(text) !== undefined;
  } catch {
    return false;
  }
}

/**
 * The connection's policies become those of now; the addresses that they select by are the client's, too.
 * State: which addresses came from here, per connection; dropped on close.
 */
export function policyRoutes(current: () => readonly PolicyRoute[]): Element {
  const given = new Map<string, ReadonlySet<string>>();
  return (next) => ({
    async request(request, ctx) {
      const connection = connectionOf(request);
      const context = (connection.context ??= create(ConnectionContextSchema));
      const ipContext = (context.ipContext ??= create(IPContextSchema));
      const policies = current();
      const sources = new Set(policies.map(({ from }) => from).filter((from) => from !== ""));
      const before = given.get(connection.id) ?? new Set();
      ipContext.srcIpAddrs = ipContext.srcIpAddrs.filter((text) => sources.has(text) || !before.has(text));
      for (const source of sources) addAddress(ipContext.srcIpAddrs, source);
      ipContext.policies = policies.map((policy) => create(PolicyRouteSchema, policy));
      const response = await next.request(request, ctx);
      given.set(connection.id, sources);
      return response;
    },
    async close(connection, ctx) {
      given.delete(connection.id);
      await next.close(connection, ctx);
    },
  });
}

/** Asks the clients of all connections to refresh: something that they get from us has changed. */
export function requestRefresh(store: MonitorStore): void {
  for (const id of store.ids()) store.fromNextHop(id, { state: State.REFRESH_REQUESTED });
}
