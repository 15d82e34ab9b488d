/**
 * Processes of a mesh that are none: real chains in this process, which call one another as if by gRPC. Messages are copied at
 * each call, every call has a peer with a real certificate and a token signed with its key, and a station that was killed
 * answers nobody and ends its streams. Whoever gives up a call is told so at once; the other side hears of it when the news has
 * travelled there.
 */
import { clone, create } from "@bufbuild/protobuf";
import { ConnectionSchema, MonitorScopeSelectorSchema } from "../../api/gen/connection_pb.js";
import type { Connection, ConnectionEvent } from "../../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../../api/gen/networkservice_pb.js";
import type { CallContext, NetworkService } from "../../sdk/chain.ts";
import { systemClock } from "../../sdk/clock.ts";
import type { MonitorStore } from "../../sdk/elements/monitor.ts";
import type { Hops } from "../../sdk/elements/next-hop.ts";
import type { NextHop } from "../../sdk/elements/target.ts";
import { NsmError } from "../../sdk/errors.ts";
import type { Peer } from "../../sdk/grpc/peer.ts";
import { createFollowers } from "../../sdk/hops.ts";
import { silentLogger as log } from "../../sdk/log.ts";
import type { X509Snapshot } from "../../sdk/spiffe/source.ts";
import { createTokenMinter } from "../../sdk/token.ts";
import type { TokenMinter } from "../../sdk/token.ts";
import type { TestAuthority } from "./certificates.ts";

/** One "process" with an identity. */
export interface Station extends AsyncDisposable {
  readonly name: string;
  readonly url: string;
  readonly spiffeId: string;
  readonly own: X509Snapshot;
  readonly minter: TokenMinter;
  /** Calls to other stations. */
  readonly hops: Hops;
  /** Resolves when somebody answers there. */
  readonly probe: (hop: NextHop) => Promise<void>;
  readonly isAlive: boolean;
  /** From now on it answers calls at its URL, and at these. */
  serve(chain: NetworkService, store: MonitorStore, ...more: readonly string[]): void;
  /** As if by SIGKILL: streams break, calls in progress and to come fail. */
  kill(): void;
  /** Who it is for the station that it calls at a URL. */
  peerAt(other: Station, url: string): Peer;
}

export interface Stations {
  /** `path` of its SPIFFE id, with a slash. Another one of the same URL takes its place. */
  open(options: { name: string; path: string; url: string }): Promise<Station>;
  /** Throws UNAVAILABLE `unreachable` when nobody answers there, NOT_FOUND `process-ended` for an endpoint that was killed. */
  at(url: string): Served;
  readonly transit: Transit;
  readonly onSent: OnSent;
  /** The calls of one station to whoever answers at a URL. */
  callsOf(station: Station): Calls;
}

interface Served {
  readonly station: Station;
  readonly chain: NetworkService;
  readonly store: MonitorStore;
  readonly ended: AbortSignal;
}

export interface Calls {
  request(
    url: string,
    request: Parameters<NetworkService["request"]>[0],
    ctx: Pick<CallContext, "signal" | "deadlineMs">,
  ): Promise<Connection>;
  close(url: string, connection: Connection, ctx: Pick<CallContext, "signal" | "deadlineMs">): Promise<void>;
  monitor(url: string, segment: string, signal: AbortSignal): AsyncIterable<ConnectionEvent>;
}

/** Resolves when what was sent at that moment by one station to another arrives; in the order of sending. */
export type Transit = (from: string, to: string) => Promise<void>;

/** A message that one station has sent to another. */
export interface Sent {
  readonly kind: "request" | "close";
  readonly from: string;
  readonly to: string;
  /**
   * It arrives once more, as what a broken session still held: nobody hears the answer, and the other station notices `givenUpMs`
   * after the arrival that its caller has left. Resolves when it is done there.
   */
  again(givenUpMs: number): Promise<void>;
}

export type OnSent = (sent: Sent) => void;

/** Stations with identities of one authority. `onSent` hears of each Request and Close. */
export function createStations(
  authority: TestAuthority,
  transit: Transit = () => Promise.resolve(),
  onSent: OnSent = () => undefined,
): Stations {
  const served = new Map<string, Served>();
  const stations: Stations = {
    open: (options) => openStation(options, authority, served, stations),
    transit,
    onSent,
    at(url) {
      const found = served.get(plain(url));
      if (found?.station.isAlive === true) return found;
      // Whoever dials the socket of a process of this node knows whether that lives.
      if (found !== undefined && url.startsWith("unix:///proc/"))
        throw new NsmError("NOT_FOUND", "process-ended", `the process of ${url} has ended`);
      throw new NsmError("UNAVAILABLE", "unreachable", `nobody answers at ${url}`);
    },
    callsOf: (station) => callsOf(station, stations),
  };
  return stations;
}

/** Without the process in whose root a manager says it is. */
function plain(url: string): string {
  return url.replace(/^unix:\/\/\/proc\/\d+\/root\//, "unix:///");
}

async function openStation(
  { name, path, url }: { name: string; path: string; url: string },
  authority: TestAuthority,
  served: Map<string, Served>,
  stations: Stations,
): Promise<Station> {
  const own = await authority.issue(path);
  const minter = createTokenMinter({ clock: systemClock });
  const ended = new AbortController();
  const calls = (): Calls => callsOf(station, stations);
  const followers = createFollowers({
    name,
    log,
    // A forwarder sees the processes of its endpoints' sockets; nobody sees those of another node.
    isAlive: ({ url: hopUrl }) =>
      !path.startsWith("/forwarder/") ||
      !hopUrl.startsWith("unix:") ||
      served.get(plain(hopUrl))?.station.isAlive === true,
    open: (hop: NextHop, signal) => calls().monitor(hop.url, name, signal),
  });
  const station: Station = {
    name,
    url,
    spiffeId: own.svid.id,
    own,
    minter,
    hops: {
      request: (hop, request, ctx) => calls().request(hop.url, request, ctx),
      close: (hop, connection, ctx) => calls().close(hop.url, connection, ctx),
      follow: followers.follow,
    },
    async probe(hop) {
      const { station: other } = stations.at(hop.url);
      await stations.transit(name, other.name);
    },
    get isAlive() {
      return !ended.signal.aborted;
    },
    serve(chain, store, ...more) {
      for (const each of [url, ...more]) served.set(each, { station, chain, store, ended: ended.signal });
    },
    kill: () => ended.abort(),
    peerAt(other, dialled) {
      const [certificate] = own.svid.chain;
      if (certificate === undefined) throw new Error("an SVID has a leaf");
      const isUnix = dialled.startsWith("unix:");
      return {
        session: `${name}-${other.name}`,
        spiffeId: own.svid.id,
        certificate,
        own: other.own,
        transport: isUnix ? "unix" : "tcp",
        process: isUnix
          ? { pid: process.pid, uid: 0, gid: 0, pidfd: undefined, isAlive: () => station.isAlive }
          : undefined,
      };
    },
    async [Symbol.asyncDispose]() {
      ended.abort();
      await followers[Symbol.asyncDispose]();
    },
  };
  return station;
}

function callsOf(caller: Station, stations: Stations): Calls {
  const call = async <T>(
    url: string,
    given: Pick<CallContext, "signal" | "deadlineMs">,
    run: (chain: NetworkService, ctx: CallContext) => Promise<T>,
  ): Promise<T> => {
    if (!caller.isAlive) throw new NsmError("CANCELLED", "ended", `${caller.name} has ended`);
    given.signal.throwIfAborted();
    const { station, chain, ended } = stations.at(url);
    const peer = caller.peerAt(station, url);
    const callerToken = caller.minter.mint(caller.own.svid, station.spiffeId);
    const there = () => stations.transit(caller.name, station.name);
    const givenUp = new AbortController();
    const signal = AbortSignal.any([givenUp.signal, ended]);
    const over = () => givenUp.abort(new NsmError("CANCELLED", "cancelled", "the call was cancelled"));
    given.signal.addEventListener("abort", () => void there().then(over), { once: true });
    using timer = systemClock.timer((given.deadlineMs ?? Infinity) - systemClock.now(), over);
    void timer;
    const serve = async () => {
      await there();
      try {
        signal.throwIfAborted();
        return await run(chain, { signal, deadlineMs: given.deadlineMs, peer, callerToken });
      } finally {
        await stations.transit(station.name, caller.name);
      }
    };
    const lost = () => new NsmError("UNAVAILABLE", "connection-lost", `${station.name} has ended`);
    const cancelled = () => new NsmError("CANCELLED", "cancelled", "the call was cancelled");
    return await Promise.race([serve(), rejectAt(ended, lost), rejectAt(given.signal, cancelled)]);
  };
  const tell = (
    kind: Sent["kind"],
    url: string,
    run: (chain: NetworkService, ctx: CallContext) => Promise<unknown>,
  ) => {
    const { station } = stations.at(url);
    stations.onSent({
      kind,
      from: caller.name,
      to: station.name,
      async again(givenUpMs) {
        const left = new AbortController();
        const { chain } = stations.at(url);
        const peer = caller.peerAt(station, url);
        const callerToken = caller.minter.mint(caller.own.svid, station.spiffeId);
        using timer = systemClock.timer(givenUpMs, () =>
          left.abort(new NsmError("CANCELLED", "cancelled", "the session was closed")),
        );
        void timer;
        await run(chain, { signal: left.signal, deadlineMs: undefined, peer, callerToken }).catch(
          () => undefined,
        );
      },
    });
  };
  return {
    async request(url, request, given) {
      const copy = clone(NetworkServiceRequestSchema, request);
      const sent = clone(NetworkServiceRequestSchema, request);
      tell("request", url, (chain, ctx) => chain.request(clone(NetworkServiceRequestSchema, sent), ctx));
      return clone(ConnectionSchema, await call(url, given, (chain, ctx) => chain.request(copy, ctx)));
    },
    async close(url, connection, given) {
      const copy = clone(ConnectionSchema, connection);
      const sent = clone(ConnectionSchema, connection);
      tell("close", url, (chain, ctx) => chain.close(clone(ConnectionSchema, sent), ctx));
      await call(url, given, (chain, ctx) => chain.close(copy, ctx));
    },
    async *monitor(url, segment, signal) {
      const { station, store, ended } = stations.at(url);
      const selector = create(MonitorScopeSelectorSchema, { pathSegments: [{ name: segment }] });
      const peer = caller.peerAt(station, url);
      yield* store.subscribe(selector, peer.spiffeId, AbortSignal.any([signal, ended]));
      if (!signal.aborted) throw new NsmError("UNAVAILABLE", "connection-lost", `${station.name} has ended`);
    },
  };
}

function rejectAt(signal: AbortSignal, error: () => NsmError): Promise<never> {
  return new Promise((_, reject) => {
    const fail = () => reject(error());
    if (signal.aborted) fail();
    else signal.addEventListener("abort", fail, { once: true });
  });
}
