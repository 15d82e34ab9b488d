/**
 * Clients of this node whose Requests failed: they are told to try again as soon as somebody registers who would serve them
 * (docs/protocol.md, "Waiting").
 *
 *   none --Request fails--> waiting --somebody new would serve, said once--> waiting --Request answered, Close, a minute--> none
 */
import type { Connection } from "../api/gen/connection_pb.js";
import type { NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import type { Clock } from "../sdk/clock.ts";
import type { MonitorStore } from "../sdk/elements/monitor.ts";
import type { Logger } from "../sdk/log.ts";
import { matchForwarders } from "../sdk/match-forwarders.ts";
import { matchEndpoints } from "../sdk/match.ts";
import type { FollowedService, KnownService, RegistryView } from "../sdk/registry/view.ts";
import type { Labels } from "../sdk/selector-template.ts";
import type { LocalEndpoints } from "./local-endpoints.ts";

/** A client that tries again by itself does so more often; who does not is gone. */
const KEPT_MS = 60_000;
/** Between one that is told and the next. */
const SPREAD_MS = 5;
/** Of a node. Who does not fit in tries again by itself. */
const MAX_WIRES = 1024;
/** Services that are followed for those who wait: clients name them as they like. */
const MAX_SERVICES = 64;
/** Of them for one SPIFFE id. */
const MAX_SERVICES_OF_OWNER = 8;

export interface WaitingOptions {
  readonly view: Pick<RegistryView, "follow">;
  readonly local: Pick<LocalEndpoints, "published" | "onChange">;
  readonly forwarderService: string;
  readonly store: Pick<MonitorStore, "whisper">;
  readonly clock: Pick<Clock, "timer">;
  readonly log: Logger;
}

export interface WaitingWire {
  readonly service: string;
  /** Of the client, that selectors see. */
  readonly labels: Labels;
  /** SPIFFE id of the client. */
  readonly owner: string;
  /** What the client is told, when it is told: its own segment, ours, and the wish. */
  readonly news: Connection;
}

export interface Waiting extends Disposable {
  /** A Request of the wire with this key begins: whoever is registered by now is asked by it. */
  asks(key: string): void;
  /** It has failed. */
  add(key: string, wire: WaitingWire): void;
  /** It was answered, or the wire is not wanted any more. */
  drop(key: string): void;
}

interface Kept {
  readonly wire: WaitingWire;
  /** Who would serve when the wire was last told, or asked: those are no news. */
  readonly tried: ReadonlySet<string>;
  readonly timer: Disposable;
}

interface ServiceWaitedFor {
  readonly followed: FollowedService;
  readonly keys: Set<string>;
}

export function createWaiting(options: WaitingOptions): Waiting {
  const { clock, log, forwarderService } = options;
  const wires = new Map<string, Kept>();
  const services = new Map<string, ServiceWaitedFor>();
  const looking = new Set<Disposable>();

  const servers = (wire: WaitingWire): ReadonlySet<string> => {
    const known = services.get(wire.service)?.followed.known();
    return known === undefined
      ? new Set()
      : serversOf(wire, known, options.local.published(forwarderService), forwarderService);
  };
  /** A retry is worth it when somebody is there who was not asked. */
  const look = (key: string) => {
    const kept = wires.get(key);
    if (kept === undefined) return;
    const now = servers(kept.wire);
    const isNews = [...now].some((server) => !kept.tried.has(server));
    wires.set(key, { ...kept, tried: now }); // who goes and comes back is news
    if (!isNews) return;
    const { service, news, owner } = kept.wire;
    log.info({ connection: news.id, service }, "somebody has registered who would serve: its client is told");
    options.store.whisper(news, owner);
  };
  /** One after the other: all who wait for a service would ask at the same moment. */
  const lookAll = (keys: Iterable<string>) => {
    for (const [index, key] of [...keys].entries()) {
      const timer = clock.timer(index * SPREAD_MS, () => {
        looking.delete(timer);
        look(key);
      });
      looking.add(timer);
    }
  };
  const forget = (key: string): Kept | undefined => {
    const kept = wires.get(key);
    if (kept === undefined) return undefined;
    kept.timer[Symbol.dispose]();
    wires.delete(key);
    const { service } = kept.wire;
    const waitedFor = services.get(service);
    waitedFor?.keys.delete(key);
    if (waitedFor?.keys.size === 0) {
      services.delete(service);
      waitedFor.followed[Symbol.dispose]();
    }
    return kept;
  };
  const hasRoom = ({ service, owner }: WaitingWire): boolean => {
    if (wires.size >= MAX_WIRES) return false;
    if (services.has(service)) return true;
    const ofOwner = new Set(
      [...wires.values()].flatMap(({ wire }) => (wire.owner === owner ? wire.service : [])),
    );
    return services.size < MAX_SERVICES && ofOwner.size < MAX_SERVICES_OF_OWNER;
  };
  const follow = (service: string): ServiceWaitedFor => {
    const known = services.get(service);
    if (known !== undefined) return known;
    const keys = new Set<string>();
    const waitedFor = { followed: options.view.follow(service, () => lookAll(keys)), keys };
    services.set(service, waitedFor);
    return waitedFor;
  };
  const ofForwarders = options.local.onChange(forwarderService, () => lookAll(wires.keys()));

  return {
    asks(key) {
      const kept = wires.get(key);
      if (kept !== undefined) wires.set(key, { ...kept, tried: servers(kept.wire) });
    },
    add(key, wire) {
      const before = wires.get(key);
      const isSame = before?.wire.service === wire.service && before.wire.owner === wire.owner;
      if (!isSame) forget(key);
      else before.timer[Symbol.dispose]();
      if (!isSame && !hasRoom(wire)) return;
      const timer = clock.timer(KEPT_MS, () => forget(key));
      wires.set(key, { wire, tried: isSame ? before.tried : new Set(), timer });
      follow(wire.service).keys.add(key);
      // Somebody may have come while the Request was on its way.
      look(key);
    },
    drop(key) {
      forget(key);
    },
    [Symbol.dispose]() {
      ofForwarders[Symbol.dispose]();
      for (const timer of looking) timer[Symbol.dispose]();
      for (const key of wires.keys()) forget(key);
    },
  };
}

/** Endpoints and forwarders that a Request would be led to, each with the time of its registration: who comes back is another one. */
function serversOf(
  { labels }: WaitingWire,
  { service, endpoints }: KnownService,
  forwarders: readonly NetworkServiceEndpoint[],
  forwarderService: string,
): ReadonlySet<string> {
  if (service === undefined) return new Set();
  const fitting = matchForwarders(service, labels, forwarders, forwarderService);
  if (fitting.length === 0) return new Set();
  const found = matchEndpoints(service, labels, endpoints)
    .filter(({ preference }) => !preference.isAway)
    .map(({ endpoint }) => endpoint);
  if (found.length === 0) return new Set();
  return new Set([...fitting, ...found].map(registrationOf));
}

function registrationOf({ name, url, initialRegistrationTime: time }: NetworkServiceEndpoint): string {
  return JSON.stringify([name, url, time === undefined ? "" : `${time.seconds}.${time.nanos}`]);
}
