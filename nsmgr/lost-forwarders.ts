/**
 * Forwarders of this node that ended and do not come back: their wires go to others (docs/protocol.md, "The death of a forwarder").
 *
 *   here --process ends, unregisters--> missing --grace--> given up --registers again--> here
 */
import type { Clock } from "../sdk/clock.ts";
import type { Logger } from "../sdk/log.ts";
import type { LocalEndpoints } from "./local-endpoints.ts";

/** Wires that go to another forwarder are spread: so much for each, and not more for all. */
const SPREAD_MS = 50;
const LONGEST_SPREAD_MS = 10_000;

export interface LostForwardersOptions {
  readonly local: Pick<LocalEndpoints, "published" | "onChange">;
  /** Service under which forwarders register. */
  readonly forwarderService: string;
  /** How long a forwarder may take to come back: it adopts its wires then, and not a packet is lost. */
  readonly forwarderGraceMs: number;
  /** The wire is to be asked for again, and goes to another forwarder then. */
  readonly askAgain: (id: string) => void;
  readonly clock: Pick<Clock, "timer">;
  readonly log: Logger;
}

export interface LostForwarders extends Disposable {
  /** A wire was made, or refreshed, by this forwarder. */
  serves(id: string, forwarder: string): void;
  drop(id: string): void;
  /** It has been away for longer than the grace, and there is another one. */
  isGivenUp(forwarder: string): boolean;
}

/** State: the forwarder of each wire; dropped on close. */
export function createLostForwarders(options: LostForwardersOptions): LostForwarders {
  const { local, forwarderService, clock, log } = options;
  const servedBy = new Map<string, string>();
  /** Those that are missing, until they are given up. */
  const missing = new Map<string, Disposable>();
  const over = new Set<string>();
  const asking = new Map<string, Disposable>();

  const present = () => new Set(local.published(forwarderService).map(({ name }) => name));
  const settle = (id: string) => {
    asking.get(id)?.[Symbol.dispose]();
    asking.delete(id);
  };
  const moveAll = (forwarder: string) => {
    const ids = [...servedBy].flatMap(([id, name]) => (name === forwarder ? [id] : []));
    const stepMs = Math.min(SPREAD_MS, LONGEST_SPREAD_MS / Math.max(1, ids.length));
    if (ids.length > 0)
      log.warn({ forwarder, wires: ids.length }, "forwarder does not come back: its wires go to another one");
    for (const [index, id] of ids.entries()) {
      settle(id);
      const ask = () => {
        asking.delete(id);
        options.askAgain(id);
      };
      asking.set(id, clock.timer(index * stepMs, ask));
    }
  };
  const look = () => {
    const here = present();
    for (const [name, timer] of missing) {
      if (!here.has(name)) continue;
      timer[Symbol.dispose]();
      missing.delete(name);
    }
    for (const name of over) if (here.has(name)) over.delete(name);
    for (const name of new Set(servedBy.values())) {
      if (here.has(name) || missing.has(name)) continue;
      if (over.has(name)) {
        if (here.size > 0) moveAll(name); // somebody has come who could serve them
        continue;
      }
      const giveUp = () => {
        missing.delete(name);
        over.add(name);
        if (present().size > 0) moveAll(name);
      };
      missing.set(name, clock.timer(options.forwarderGraceMs, giveUp));
    }
    const used = new Set(servedBy.values());
    for (const name of over) if (!used.has(name)) over.delete(name);
  };
  const watch = local.onChange(forwarderService, look);

  return {
    serves(id, forwarder) {
      settle(id);
      servedBy.set(id, forwarder);
    },
    drop(id) {
      settle(id);
      servedBy.delete(id);
    },
    isGivenUp: (forwarder) => over.has(forwarder) && present().size > 0,
    [Symbol.dispose]() {
      watch[Symbol.dispose]();
      for (const timer of [...missing.values(), ...asking.values()]) timer[Symbol.dispose]();
    },
  };
}
