/** The manager's chain: client -> manager -> forwarder. */
import type { NetworkService } from "../sdk/chain.ts";
import type { ClientInfo } from "../sdk/client-info.ts";
import { recordHistory } from "../sdk/elements/history.ts";
import type { History } from "../sdk/elements/history.ts";
import { connect, followNextHop } from "../sdk/elements/next-hop.ts";
import type { Hops } from "../sdk/elements/next-hop.ts";
import { closeOldHalf } from "../sdk/elements/old-half.ts";
import { serverChain } from "../sdk/elements/server-chain.ts";
import type { ServerChainOptions } from "../sdk/elements/server-chain.ts";
import { closeForDead } from "./client-death.ts";
import type { ClientDeathOptions } from "./client-death.ts";
import { clientInfo } from "./client-info.ts";
import { excludedPrefixes } from "./excluded-prefixes.ts";
import { moveWires } from "./move-wires.ts";
import type { Moves } from "./moves.ts";
import { selectForwarder } from "./select-forwarder.ts";
import type { SelectForwarderOptions } from "./select-forwarder.ts";
import { vouchForPeer } from "./vouch-for-peer.ts";
import { wakeWaiting } from "./wake-waiting.ts";
import type { Waiting } from "./waiting.ts";

export interface ManagerChainOptions extends ServerChainOptions, SelectForwarderOptions, ClientDeathOptions {
  readonly hops: Hops;
  readonly history: History;
  readonly info: ClientInfo;
  readonly moves: Moves;
  readonly waiting: Waiting;
  /** What no endpoint may give out, now. */
  readonly excluded: () => readonly string[];
  /** True for ids that forwarders have, here and on other nodes. */
  readonly mayForward: (spiffeId: string) => boolean;
}

export function createManagerChain(options: ManagerChainOptions): NetworkService {
  // A Close that arrives before the refresh after our restart still reaches the forwarder, which knows the owner.
  return serverChain({ ...options, closeUnknown: true })
    .use("recordHistory", recordHistory(options.history)) // what callers with a right to the wire did
    .use("clientInfo", clientInfo(options.info)) // before matching: labels count
    .use("wakeWaiting", wakeWaiting(options.waiting)) // with the labels that count, and who asks
    .use("excludedPrefixes", excludedPrefixes(options.excluded)) // before an endpoint chooses addresses
    .use("moveWires", moveWires(options.moves)) // with the labels that count, when it is known who serves
    .use("vouchForPeer", vouchForPeer(options.mayForward)) // while the caller's session is at hand
    .use("closeForDead", closeForDead(options)) // once the caller's process is known to be its own
    .use("selectForwarder", selectForwarder(options)) // chooses the next hop
    .use("closeOldHalf", closeOldHalf(options.hops, options.log)) // when the new half is there
    .use("followNextHop", followNextHop(options.hops, options.store)) // after the choice, before the call
    .end(connect(options.hops));
}
