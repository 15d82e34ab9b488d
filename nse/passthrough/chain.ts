/** The pass-through endpoint's chain: as an endpoint's, but it asks for the same service again instead of answering. */
import type { NetworkService } from "../../sdk/chain.ts";
import { serverChain } from "../../sdk/elements/server-chain.ts";
import type { ServerChainOptions } from "../../sdk/elements/server-chain.ts";
import { NO_ADDRESSES } from "../../sdk/mechanisms/kernel.ts";
import { kernelMechanism } from "../kernel-mechanism.ts";
import { onIdle } from "../on-idle.ts";
import type { Idle } from "../on-idle.ts";
import type { PassThrough } from "./pass-through.ts";

export interface PassThroughChainOptions extends ServerChainOptions {
  readonly idle: Idle;
  readonly netnsUrl: string;
  /** Chooses the name of the device towards a client. */
  readonly interfaceName: () => string;
  /** Says of a name that somebody else wishes whether it is one that we could have chosen. */
  readonly isOwnName: (name: string) => boolean;
  readonly passThrough: PassThrough;
}

export function createPassThroughChain(options: PassThroughChainOptions): NetworkService {
  return serverChain(options)
    .use("onIdle", onIdle(options.idle)) // who is about to stop takes nobody on
    .use("kernelMechanism", kernelMechanism({ ...options, parameters: NO_ADDRESSES })) // our end of the wire before
    .end(options.passThrough);
}
