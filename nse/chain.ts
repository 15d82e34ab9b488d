/** The endpoint's chain: addresses for the client and a device in the own namespace. */
import type { PolicyRoute } from "../api/gen/connectioncontext_pb.js";
import type { NetworkService } from "../sdk/chain.ts";
import { trimPath } from "../sdk/elements/trim-path.ts";
import { serverChain } from "../sdk/elements/server-chain.ts";
import type { ServerChainOptions } from "../sdk/elements/server-chain.ts";
import type { Ipam } from "../sdk/ipam/ipam.ts";
import { answer } from "./answer.ts";
import { assignAddresses } from "./assign-addresses.ts";
import { dnsContext } from "./dns-context.ts";
import type { DnsOffer } from "./dns-context.ts";
import { handOver } from "./hand-over.ts";
import { kernelMechanism } from "./kernel-mechanism.ts";
import { onIdle } from "./on-idle.ts";
import type { Idle } from "./on-idle.ts";
import { policyRoutes } from "./policy-routes.ts";

export interface EndpointChainOptions extends ServerChainOptions {
  readonly idle: Idle;
  readonly ipam: Ipam;
  /** Name servers for the clients. */
  readonly dns: readonly DnsOffer[];
  /** What the clients shall have, now. */
  readonly policies: () => readonly PolicyRoute[];
  /** `inode://<device>/<inode>` of the own network namespace. */
  readonly netnsUrl: string;
  /** Chooses the name of the endpoint's device for a service. */
  readonly interfaceName: (networkService: string) => string;
}

export function createEndpointChain(options: EndpointChainOptions): NetworkService {
  return serverChain(options)
    .use("onIdle", onIdle(options.idle)) // who is about to stop takes nobody on
    .use("trimPath", trimPath()) // nothing lies behind an endpoint
    .use("handOver", handOver(options.ipam)) // before the addresses are asked for again
    .use("assignAddresses", assignAddresses(options.ipam)) // gives them back when the rest fails
    .use("policyRoutes", policyRoutes(options.policies)) // after the pools: their addresses are no lease
    .use("dnsContext", dnsContext(options.dns))
    .use("kernelMechanism", kernelMechanism(options)) // our end of the wire
    .end(answer());
}
