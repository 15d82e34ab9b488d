/** What the processes of the simulation are told, and what they are asked for. */
import type { Identity } from "./identities.ts";

/** All that a process needs to know, in a file that its argument names. */
export type Part = { readonly folder: string; readonly services: number } & (
  | { readonly role: "registry" | "proxy" | "client"; readonly identity: Identity }
  | { readonly role: "domains"; readonly domains: readonly DomainIdentities[] }
);

export interface DomainIdentities {
  readonly name: string;
  readonly registry: Identity;
  readonly proxy: Identity;
}

export interface Finds {
  readonly findMs: readonly number[];
  /** A call that does nothing, between any two of them. */
  readonly echoMs: readonly number[];
  /** One text a failure. */
  readonly failed: readonly string[];
}

export interface Plan {
  /** Names to find, in turn; `<name>@<domain>` for one elsewhere. */
  readonly services: readonly string[];
  /** How many endpoints each of them has. */
  readonly expected: number;
  readonly count: number;
  /** From the start of one to that of the next, though it may not have ended; the other call comes halfway. Without it one after the other. */
  readonly everyMs?: number;
}

/** Which process answers is said by its role. */
export interface SimulationCommands {
  /** Every process. Heap and what it refers to outside, without garbage, in bytes. */
  memory(): Promise<number>;
  /** Every process. How long its event loop was busy with one thing at most since the last question, in milliseconds. */
  longestStall(): Promise<number>;
  /** The client. */
  find(plan: Plan): Promise<Finds>;
  /** The registry: takes the first `count` services in from those domains, and waits until their endpoints are there. */
  takeIn(count: number, domains: readonly string[]): Promise<void>;
}
