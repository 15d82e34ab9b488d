/** The file with the policy routes of an endpoint's clients (docs/protocol.md, "Policy routes"). */
import { create } from "@bufbuild/protobuf";
import * as z from "zod";
import { PolicyRouteSchema } from "../api/gen/connectioncontext_pb.js";
import type { PolicyRoute } from "../api/gen/connectioncontext_pb.js";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { parsePortRange } from "../sdk/ip-context.ts";
import { Limits } from "../sdk/limits.ts";
import { parseIp, parsePrefix } from "../sdk/prefix.ts";
import { parseYamlAs } from "../sdk/yaml.ts";

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
    return parseYamlAs(text, Rules);
  } catch (error) {
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-policy-routes",
      `policy routes: expected a YAML list of rules such as { proto: 6, dstport: 80, routes: [{ prefix: 10.0.0.0/8 }] }: ${messageOf(error)}`,
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
