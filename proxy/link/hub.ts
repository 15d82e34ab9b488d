/** The links of a proxy as they are now: which are up, by which way the other side is reached, and who needs to know. */
import type { Clock } from "../../sdk/clock.ts";
import type { PeerDomains } from "../../sdk/domains/peers.ts";
import { NsmError } from "../../sdk/errors.ts";
import type { SessionPool, Target } from "../../sdk/grpc/sessions.ts";
import type { Logger } from "../../sdk/log.ts";
import type { LinkRecord, Own } from "./state.ts";
import type { LinkStore } from "./store.ts";

/** How this side reaches the other. */
export interface Way {
  readonly kind: "direct" | "tunnel";
  readonly url: string;
}

/** What is known of a link beside its record; in memory. */
export interface LinkLive {
  /** Undefined: down. */
  way: Way | undefined;
  /** Wall clock: since when it is up or down. */
  sinceMs: number;
  /** Why it is down. */
  why: string;
  rttMs: number | undefined;
  /** Wall clock: when the other side's bundle was last heard. */
  bundleHeardMs: number | undefined;
  offeredToUs: readonly string[];
  /** Where the other side sees this one; undefined before it has said so, and where it dials. The word of a peer. */
  observedAddress?: string;
}

/** Network services that others may use. */
export interface Offers {
  to(domain: string): readonly string[];
  /** Calls `listener` after each change, until disposed. */
  onChange(listener: () => void): Disposable;
}

export interface HubEvents {
  /** Other calls to the domain go on now, to another process maybe. */
  readonly up: (link: LinkRecord) => void;
  /** Its wires have to end; resolves when they have. */
  readonly gone: (link: LinkRecord) => Promise<void>;
}

export interface HubOptions {
  readonly own: Own;
  readonly store: LinkStore;
  readonly pool: SessionPool;
  readonly clock: Clock;
  readonly log: Logger;
}

const SCHEME = "link://";

export type Hub = ReturnType<typeof createHub>;

export function createHub(options: HubOptions) {
  const { own, store, pool, clock, log } = options;
  const lives = new Map<string, LinkLive>();
  const listeners = new Set<HubEvents>();
  const links = () => store.current().links;
  const byDomain = (domain: string) => links().find((link) => link.domain === domain);
  const byPeer = (spiffeId: string) => links().find((link) => link.proxyId === spiffeId);
  const live = (id: string): LinkLive => {
    const known = lives.get(id) ?? {
      way: undefined,
      sinceMs: clock.now(),
      why: "not connected yet",
      rttMs: undefined,
      bundleHeardMs: undefined,
      offeredToUs: [],
    };
    lives.set(id, known);
    return known;
  };
  const peers: PeerDomains = {
    domainOf(spiffeId) {
      const link = byPeer(spiffeId);
      return link?.state === "linked" ? link.domain : undefined;
    },
  };
  return {
    ...options,
    links,
    byDomain,
    byPeer,
    live,
    peers,
    linkedDomains: () => links().flatMap(({ domain, state }) => (state === "linked" ? [domain] : [])),
    observedAddress: (domain: string) => {
      const link = byDomain(domain);
      return link && lives.get(link.id)?.observedAddress;
    },
    /** The link that a call of the other proxy is about. Throws NOT_FOUND `not-linked`. */
    linkOf(spiffeId: string, id: string): LinkRecord {
      const link = byPeer(spiffeId);
      if (link !== undefined && link.id === id && link.state !== "leaving") return link;
      throw new NsmError(
        "NOT_FOUND",
        "not-linked",
        `${own.domain} has no such link with ${spiffeId}: it was removed, or never made`,
      );
    },
    /** `isAnew`: the stream has just been opened, so that the other side may be another process, which knows nothing. */
    wentUp({ id, domain }: LinkRecord, way: Way, isAnew: boolean): void {
      const now = live(id);
      const wasUp = now.way !== undefined;
      now.way = way;
      if (wasUp && !isAnew) return;
      if (!wasUp) {
        now.sinceMs = clock.now();
        now.why = "";
        log.info({ domain, way: way.kind }, "link is up");
      }
      const link = byDomain(domain);
      if (link !== undefined) for (const { up } of listeners) up(link);
    },
    /** Everything that goes over it is cut: the connections may be dead without anybody having said so. */
    wentDown({ id, domain }: LinkRecord, why: string): void {
      const now = live(id);
      const { way } = now;
      if (way === undefined) {
        now.why = why;
        return;
      }
      Object.assign(now, { way: undefined, rttMs: undefined, sinceMs: clock.now(), why });
      pool.end(way.url);
      log.warn({ domain, why }, "link is down");
    },
    /** Ends the wires that go over it. */
    async endWires(link: LinkRecord): Promise<void> {
      await Promise.allSettled([...listeners].map(({ gone }) => gone(link)));
    },
    forget({ id }: LinkRecord): void {
      const way = lives.get(id)?.way;
      lives.delete(id);
      if (way !== undefined) pool.end(way.url);
    },
    /** Where calls to `link://<domain>` go. Throws UNAVAILABLE `domain-silent` at once while the link is down. */
    targetOf(target: Target): Target {
      const domain = target.url.slice(SCHEME.length);
      const link = byDomain(domain);
      const now = link === undefined ? undefined : live(link.id);
      if (link?.state !== "linked" || now?.way === undefined) throw silent(domain, link, now);
      const { url } = now.way;
      const key = target.key?.replace(target.url, url);
      return { url, expect: (id) => id === link.proxyId, ...(key !== undefined && { key }) };
    },
    listen(events: HubEvents): Disposable {
      listeners.add(events);
      return { [Symbol.dispose]: () => void listeners.delete(events) };
    },
  };
}

export function isLinkUrl(url: string): boolean {
  return url.startsWith(SCHEME);
}

export function linkUrl(domain: string): string {
  return `${SCHEME}${domain}`;
}

/** A pool that also knows `link://<domain>`. */
export function poolOverLinks(pool: SessionPool, targetOf: (target: Target) => Target): SessionPool {
  const led = (target: Target) => (isLinkUrl(target.url) ? targetOf(target) : target);
  const end = (url: string) => {
    try {
      pool.end(led({ url }).url);
    } catch (error) {
      if (!(error instanceof NsmError)) throw error; // it is down, and all of it has ended
    }
  };
  return {
    unary: async (target, ...rest) => await pool.unary(led(target), ...rest),
    async *stream(target, ...rest) {
      yield* pool.stream(led(target), ...rest);
    },
    connect: async (target, context) => await pool.connect(led(target), context),
    end,
    [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose](),
  };
}

function silent(domain: string, link: LinkRecord | undefined, now: LinkLive | undefined): NsmError {
  const why =
    link === undefined
      ? "it is not linked any more"
      : now === undefined || now.way !== undefined
        ? `its link is ${link.state}`
        : `its link is down since ${new Date(now.sinceMs).toISOString()}: ${now.why}`;
  return new NsmError("UNAVAILABLE", "domain-silent", `domain ${domain}: ${why} (nsm link list)`);
}
