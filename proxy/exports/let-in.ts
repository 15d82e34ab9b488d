/** What comes in from another domain is for services that are exported to it, and ends when they are not any more (docs/protocol.md, "Exports"). */
import type { Connection } from "../../api/gen/connection_pb.js";
import type { CallContext, Element } from "../../sdk/chain.ts";
import type { Clock } from "../../sdk/clock.ts";
import type { Exports } from "../../sdk/domains/exports.ts";
import type { PeerDomains } from "../../sdk/domains/peers.ts";
import type { WithEvents } from "../../sdk/elements/begin.ts";
import { connectionOf } from "../../sdk/elements/update-path.ts";
import { NsmError } from "../../sdk/errors.ts";
import { discover } from "../../sdk/match.ts";
import type { RegistryView } from "../../sdk/registry/view.ts";
import type { WithSide } from "../side.ts";

export interface LetInOptions {
  readonly exports: Pick<Exports, "isExported" | "onChange">;
  readonly peers: PeerDomains;
  readonly view: Pick<RegistryView, "endpoint">;
  readonly clock: Pick<Clock, "now">;
}

interface LetIn {
  readonly domain: string;
  readonly service: string;
  readonly close: WithEvents["events"]["close"];
}

/** State: who was let in, by connection id. Names are those of this domain already. */
export function letInExported({ exports, peers, view, clock }: LetInOptions): Element<WithEvents & WithSide> {
  const inside = new Map<string, LetIn>();
  // For as long as the chain, which is that of the process.
  exports.onChange(() => {
    for (const { domain, service, close } of inside.values())
      if (!exports.isExported(service, domain)) void close(`no longer exported to domain ${domain}`);
  });
  /** In the words for a service or endpoint that is not there. */
  const refuse = (connection: Connection) =>
    discover({ connection, services: [], endpoints: [], nowMs: clock.now() });
  /** It names an endpoint of another service. */
  const isAstray = async (connection: Connection, ctx: CallContext & WithEvents & WithSide) => {
    const { networkService, networkServiceEndpointName: name } = connection;
    if (name === "" || ctx.established || ctx.way !== undefined) return false;
    const found = await view.endpoint(name, networkService, ctx.signal);
    return found?.networkServiceNames.includes(networkService) === false;
  };
  const domainOf = ({ peer }: CallContext) => peer && peers.domainOf(peer.spiffeId);
  return (next) => ({
    async request(request, ctx) {
      const domain = domainOf(ctx);
      if (domain === undefined) return await next.request(request, ctx);
      const connection = connectionOf(request);
      const { id, networkService: service } = connection;
      if (!exports.isExported(service, domain) || (await isAstray(connection, ctx))) refuse(connection);
      const response = await next.request(request, ctx);
      if (!exports.isExported(service, domain)) {
        if (!ctx.established) await next.close(response, ctx);
        throw new NsmError("ABORTED", "closed", `connection ${id} was closed while it was requested`);
      }
      inside.set(id, { domain, service, close: (why) => ctx.events.close(why) });
      return response;
    },
    async close(connection, ctx) {
      inside.delete(connection.id);
      await next.close(connection, ctx);
    },
  });
}
