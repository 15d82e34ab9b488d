/** From the moment when a link is written down to the one when nothing of it is left. */
import { createBackoff } from "../../sdk/backoff.ts";
import { delay } from "../../sdk/clock.ts";
import { keepAsking, keepDialling } from "./dialling.ts";
import type { DiallingOptions } from "./dialling.ts";
import type { Hub } from "./hub.ts";
import type { Keeping } from "./keeping.ts";
import { changeLink, endLink, endWasTold } from "./state.ts";
import type { LinkRecord } from "./state.ts";
import type { Trust } from "./trust.ts";
import type { TunnelDoors } from "./tunnels.ts";

/** The other side's patience is not ours: a link that is removed is removed here. */
const GOODBYE_MS = 2000;
/** For the wires to be closed over the link, as long as it is there. */
const WIRES_MS = 2000;

export interface LifeOptions {
  readonly hub: Hub;
  readonly trust: Trust;
  readonly doors: TunnelDoors;
  readonly keeping: () => Keeping;
  readonly dial: Omit<DiallingOptions, "hub" | "onUnlinked">;
  /** Tells the other side that it is over. Throws when it does not hear it. */
  readonly sayGoodbye: (link: LinkRecord) => Promise<void>;
  /** How long a link may be half made. */
  readonly pendingMs: number;
  /** Aborted when the proxy stops; links stay then. */
  readonly stop: AbortSignal;
}

export interface Life extends AsyncDisposable {
  /** What belongs to a link that is written down: the time it has, a door for tunnels, or dialling. */
  readonly begin: (link: LinkRecord) => Promise<void>;
  /** Both directions are verified, seen from this side. */
  confirm(link: LinkRecord): Promise<void>;
  /**
   * Ends a link on this side, also one that was only begun; its bundle is taken back, now or as soon as the authority is there.
   * True when the other side was told.
   */
  readonly drop: (link: LinkRecord) => Promise<boolean>;
  /** The same for a link that the other side has ended, or whose time is over: faults go to the log. */
  dropSilently(link: LinkRecord): void;
}

export function createLife(options: LifeOptions): Life {
  const { hub, trust, doors, keeping, dial, sayGoodbye, pendingMs, stop } = options;
  const { store, clock, log } = hub;
  const dialling = new Map<string, { readonly stop: AbortController; readonly running: Promise<void> }>();
  const timers = new Map<string, Disposable>();
  const ending = new Map<string, Promise<boolean>>();

  const begin = async (link: LinkRecord) => {
    const leftMs = Math.min(pendingMs, link.sinceMs + pendingMs - clock.now());
    if (link.state === "pending")
      timers.set(
        link.id,
        clock.timer(leftMs, () => dropSilently(link)),
      );
    if (!link.dials) await doors.open(link, (ticket) => keeping().askForTunnel(link, ticket));
    const own = new AbortController();
    const signal = AbortSignal.any([stop, own.signal]);
    const options = { ...dial, hub, onUnlinked: dropSilently };
    const running = link.dials ? keepDialling(link, options, signal) : keepAsking(link, options, signal);
    dialling.set(link.id, { stop: own, running });
  };

  const confirm = async ({ id, domain, proxyId }: LinkRecord) => {
    timers.get(id)?.[Symbol.dispose]();
    if (hub.links().find((link) => link.id === id)?.state !== "pending") return;
    await store.update((state) =>
      changeLink(state, id, (link) =>
        link.state === "pending" ? { ...link, state: "linked", sinceMs: clock.now() } : link,
      ),
    );
    log.info({ domain, peer: proxyId }, "domains are linked");
  };

  const end = async (link: LinkRecord, tellsOther: boolean): Promise<boolean> => {
    timers.get(link.id)?.[Symbol.dispose]();
    timers.delete(link.id);
    await within(hub.endWires(link), WIRES_MS);
    await store.update((state) => endLink(state, link.id, tellsOther ? "us" : "them", clock.now()));
    const told = tellsOther && (await within(sayGoodbye(link), GOODBYE_MS));
    if (told) await store.update((state) => endWasTold(state, link.id));
    keeping().end(link);
    dialling.get(link.id)?.stop.abort();
    dialling.delete(link.id);
    await doors.close(link);
    hub.forget(link);
    void hub.endWires(link); // of those that came in the meantime
    await takeBack(link);
    const { domain } = link;
    log.info(
      { domain, told },
      link.state === "pending" ? "link that was begun is taken back" : "link removed",
    );
    return told;
  };

  const drop = async ({ id }: LinkRecord, tellsOther = true): Promise<boolean> => {
    const running = ending.get(id);
    if (running !== undefined) return await running;
    const link = hub.links().find((each) => each.id === id);
    if (link === undefined) return false;
    const mine = end(link, tellsOther).finally(() => ending.delete(id));
    ending.set(id, mine);
    return await mine;
  };

  const dropSilently = (link: LinkRecord) => {
    drop(link, false).catch((err: unknown) =>
      log.error({ domain: link.domain, err }, "link cannot be removed"),
    );
  };

  const takeBack = async (link: LinkRecord) => {
    const attempt = async () => {
      if (link.gaveBundle) await trust.remove(link.trustDomain, stop);
      await store.update((state) => changeLink(state, link.id, () => undefined));
    };
    try {
      await attempt();
    } catch (err) {
      log.error({ domain: link.domain, err }, "bundle of a removed link is still trusted, trying again");
      void untilItWorks(attempt, stop);
    }
  };

  return {
    begin,
    confirm,
    drop,
    dropSilently,
    async [Symbol.asyncDispose]() {
      for (const timer of timers.values()) timer[Symbol.dispose]();
      await Promise.allSettled([...dialling.values()].map(({ running }) => running));
      await Promise.allSettled(ending.values());
    },
  };
}

/** False when it fails or takes longer. */
async function within(work: Promise<void>, timeMs: number): Promise<boolean> {
  const late = new AbortController();
  const done = work.then(
    () => true,
    () => false,
  );
  try {
    return await Promise.race([done, delay(timeMs, late.signal).then(() => false)]);
  } finally {
    late.abort();
  }
}

async function untilItWorks(attempt: () => Promise<void>, stop: AbortSignal): Promise<void> {
  const backoff = createBackoff();
  while (!stop.aborted) {
    await delay(backoff.next(), stop).catch(() => undefined);
    const isDone = await attempt().then(
      () => true,
      () => false,
    );
    if (isDone) return;
  }
}
