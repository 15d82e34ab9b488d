/** The forwarder's chain: manager -> forwarder -> endpoint, or the manager of another node. */
import type { NetworkService } from "../sdk/chain.ts";
import { formerHop } from "../sdk/elements/former-hop.ts";
import { connect, followNextHop } from "../sdk/elements/next-hop.ts";
import type { Hops } from "../sdk/elements/next-hop.ts";
import { closeOldHalf } from "../sdk/elements/old-half.ts";
import type { FormerLife } from "../sdk/elements/old-half.ts";
import { selectEndpoint } from "../sdk/elements/select-endpoint.ts";
import type { SelectOptions } from "../sdk/elements/select-endpoint.ts";
import { serverChain } from "../sdk/elements/server-chain.ts";
import type { ServerChainOptions } from "../sdk/elements/server-chain.ts";
import { chainEnds } from "./elements/chain-ends.ts";
import { createClientNamespaces } from "./elements/client-namespaces.ts";
import { clientSide } from "./elements/client-side.ts";
import type { ClientSideOptions, WithClientEnd } from "./elements/client-side.ts";
import { followNamespaces } from "./watch/follow-namespaces.ts";
import type { Orphans } from "./elements/orphans.ts";
import { plumb } from "./elements/plumb.ts";
import type { PlumbOptions } from "./elements/plumb.ts";
import { takeOver } from "./elements/take-over.ts";

export interface ForwarderChainOptions extends ServerChainOptions {
  readonly hops: Hops;
  readonly client: ClientSideOptions;
  readonly select: Omit<SelectOptions<unknown>, "isChosen">;
  readonly plumb: PlumbOptions;
  readonly orphans: Pick<Orphans, "element">;
}

/** Only forwarders ask for tunnels. */
const isChosen = ({ clientEnd }: Pick<WithClientEnd, "clientEnd">) => clientEnd.kind !== "kernel";

export function createForwarderChain(options: ForwarderChainOptions): NetworkService {
  const namespaces = createClientNamespaces(options.plumb.dataplane, options.client.isManager);
  const { refuseStranger } = namespaces;
  const former: FormerLife = {
    has: options.select.holdsWire,
    hopOf: (connection, signal) => formerHop(options.select, connection, signal),
  };
  // A Close that arrives before the refresh after our restart removes what the kernel still holds.
  return serverChain({ ...options, closeUnknown: true, refuseStranger })
    .use("clientSide", clientSide(options.client, namespaces)) // refuses a foreign namespace before anybody else is asked
    .use("takeOver", takeOver(options.plumb.dataplane, options.log)) // before anything is asked for that a dead predecessor still has
    .use("orphans", options.orphans.element) // remembers who asks, once that is proven
    .use("followNamespaces", followNamespaces(options.plumb.dataplane, options.store)) // a wire ends with its namespaces
    .use("selectEndpoint", selectEndpoint({ ...options.select, isChosen })) // one candidate after the other through all that follows
    .use("closeOldHalf", closeOldHalf(options.hops, options.log, former)) // when the kernel has the new half
    .use("chainEnds", chainEnds(options.plumb.dataplane, options.log)) // when the new wire is in the kernel
    .use("plumb", plumb(options.plumb)) // acts on the way back, when both ends are known
    .use("followNextHop", followNextHop(options.hops, options.store)) // after the choice, before the call
    .end(connect(options.hops));
}
