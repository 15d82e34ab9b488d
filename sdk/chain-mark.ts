/** What ties the stretches of a chain together: its number, and how many endpoints it has passed (docs/protocol.md, "Chaining"). Pure. */

import { NsmError } from "./errors.ts";

/** Where it travels: an entry of the connection's extra context. A secret of the chain's hops: it is neither logged nor shown (`operatorView`). */
export const CHAIN_KEY = "nsmChain";

/** Endpoints that one chain may pass; more are a match list that leads in circles. */
export const MAX_CHAINED = 15;

export interface ChainMark {
  /** A random UUID: whoever knows it belongs to the chain. */
  readonly id: string;
  /** Pass-through endpoints before the one that reads it; 0 = the originator of the chain asks. */
  readonly passed: number;
}

/** What a connection is told whose chain goes on with another hop before. */
export function chainTakenOver(id: string): NsmError {
  return new NsmError(
    "FAILED_PRECONDITION",
    "chain-taken-over",
    `another hop before has taken the chain of connection ${id} over: close this one`,
  );
}

const FORM = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\/(\d{1,2}))?$/;

/** Undefined for anything that is no mark of ours. */
export function readChainMark(text: string | undefined): ChainMark | undefined {
  const [, id, passed = "0"] = FORM.exec(text ?? "") ?? [];
  return id === undefined ? undefined : { id, passed: Number(passed) };
}

export function formatChainMark({ id, passed }: ChainMark): string {
  return passed === 0 ? id : `${id}/${passed}`;
}
