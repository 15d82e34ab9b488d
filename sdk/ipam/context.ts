/** Adding to and taking from an IP context. Texts that are there already are not added again. */
import { create } from "@bufbuild/protobuf";
import { RouteSchema } from "../../api/gen/connectioncontext_pb.js";
import type { IPContext, Route } from "../../api/gen/connectioncontext_pb.js";
import { contains, parsePrefix } from "../prefix.ts";
import type { IpRange } from "../prefix.ts";

/** Adds a text to a list of addresses. */
export function addAddress(list: string[], address: string): void {
  if (!list.includes(address)) list.push(address);
}

export function addRoute(routes: Route[], prefix: string, nextHop = ""): void {
  if (!routes.some((route) => route.prefix === prefix && route.nextHop === nextHop))
    routes.push(create(RouteSchema, { prefix, nextHop }));
}

/** Takes out the client's address and the endpoint's route to it. */
export function dropSrc(context: IPContext, address: string): void {
  context.srcIpAddrs = context.srcIpAddrs.filter((text) => text !== address);
  context.dstRoutes = context.dstRoutes.filter((route) => route.prefix !== address);
}

/** Takes out the endpoint's address and the client's route to it. */
export function dropDst(context: IPContext, address: string): void {
  context.dstIpAddrs = context.dstIpAddrs.filter((text) => text !== address);
  context.srcRoutes = context.srcRoutes.filter((route) => route.prefix !== address);
}

/** Takes out all addresses and routes inside the range. */
export function dropInside(context: IPContext, range: IpRange): void {
  const isOutside = (text: string) => {
    const prefix = parsePrefix(text);
    return prefix === undefined || !contains(range, prefix);
  };
  context.srcIpAddrs = context.srcIpAddrs.filter(isOutside);
  context.dstIpAddrs = context.dstIpAddrs.filter(isOutside);
  context.srcRoutes = context.srcRoutes.filter(({ prefix }) => isOutside(prefix));
  context.dstRoutes = context.dstRoutes.filter(({ prefix }) => isOutside(prefix));
}
