/** Calls to the next hop over pooled sessions, with our token for that very session (docs/protocol.md, "Tokens", "Monitoring"). */
import { create } from "@bufbuild/protobuf";
import {
  ConnectionEventType,
  MonitorConnection,
  MonitorScopeSelectorSchema,
} from "../api/gen/connection_pb.js";
import type { Connection, ConnectionEvent } from "../api/gen/connection_pb.js";
import { Health, HealthCheckRequestSchema } from "../api/gen/health_pb.js";
import { NetworkService } from "../api/gen/networkservice_pb.js";
import { createBackoff } from "./backoff.ts";
import type { CallContext as ChainContext } from "./chain.ts";
import { delay } from "./clock.ts";
import type { Hops } from "./elements/next-hop.ts";
import type { HopEvent, NextHop } from "./elements/target.ts";
import { codeOf } from "./errors.ts";
import type { SessionInfo } from "./grpc/session.ts";
import type { SessionPool, Target } from "./grpc/sessions.ts";
import { streamUntilReplaced } from "./grpc/until-replaced.ts";
import { checkConnectionLimits } from "./limits.ts";
import type { Logger } from "./log.ts";
import { writeTokenMetadata } from "./token.ts";
import type { TokenMinter } from "./token.ts";

export interface HopsOptions {
  readonly pool: SessionPool;
  readonly minter: TokenMinter;
  /** Own path segment name. */
  readonly name: string;
  readonly log: Logger;
  /** How a hop is dialled; the hop's own URL unless told. Throws when it cannot be reached. */
  readonly targetOf?: (hop: NextHop) => Target | Promise<Target>;
  /** False once the process behind a hop is known to be dead: then its connections are down, and nobody waits for it. */
  readonly isAlive?: (hop: NextHop) => boolean;
  /** Calls back once when that process has ended, or serves no more for another reason: then its connections are down. */
  readonly whenEnded?: (hop: NextHop, onEnded: () => void) => Disposable;
}

/** What a hop did not say itself. */
const SILENCE: ReadonlySet<string> = new Set(["UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"]);

/** Call metadata for a session: our token for its peer, signed with the key that it has seen. */
export function tokenMetadata(
  minter: TokenMinter,
): (session: SessionInfo) => Readonly<Record<string, string>> {
  return ({ own, peerId, peerCertificate }) =>
    writeTokenMetadata(minter.mint(own.svid, peerId, peerCertificate.validToDate.getTime()));
}

export interface OpenHops extends Hops, AsyncDisposable {
  /** The hop at this URL is there again: whoever lost it and follows it need not wait for the next try. */
  readonly isBack: (url: string) => void;
  /** Resolves when the hop answers anything at all. */
  readonly probe: (hop: NextHop, signal: AbortSignal) => Promise<void>;
}

export function createHops(options: HopsOptions): OpenHops {
  const { pool, targetOf = (hop: NextHop): Target => hop } = options;
  const metadata = tokenMetadata(options.minter);
  const followers = createFollowers({ ...options, open });
  const context = ({ signal, deadlineMs, wanted }: ChainContext & { readonly wanted?: AbortSignal }) => ({
    signal,
    deadlineMs,
    hearsLate: wanted !== undefined,
    metadata(session: SessionInfo) {
      wanted?.throwIfAborted();
      return metadata(session);
    },
  });
  async function* open(hop: NextHop, signal: AbortSignal): AsyncGenerator<ConnectionEvent> {
    const selector = create(MonitorScopeSelectorSchema, { pathSegments: [{ name: options.name }] });
    const method = MonitorConnection.method.monitorConnections;
    yield* streamUntilReplaced(pool, await targetOf(hop), method, selector, { signal, metadata });
  }
  return {
    async request(hop, request, ctx) {
      const { response } = await pool.unary(
        await targetOf(hop),
        NetworkService.method.request,
        request,
        context(ctx),
      );
      return response;
    },
    async close(hop, connection, ctx) {
      if (hop.url === "") return;
      await pool.unary(await targetOf(hop), NetworkService.method.close, connection, context(ctx));
    },
    probe: async (hop, signal) => await probe(options, await targetOf(hop), signal),
    follow: followers.follow,
    isBack: followers.isBack,
    [Symbol.asyncDispose]: followers[Symbol.asyncDispose],
  };
}

/** Resolves when the target answers anything at all. */
export async function probe(
  { pool, minter }: Pick<HopsOptions, "pool" | "minter">,
  target: Target,
  signal: AbortSignal,
): Promise<void> {
  const question = create(HealthCheckRequestSchema);
  try {
    await pool.unary(target, Health.method.check, question, { signal, metadata: tokenMetadata(minter) });
  } catch (error) {
    // A refusal is an answer, too.
    if (SILENCE.has(codeOf(error))) throw error;
  }
}

export interface FollowersOptions extends Pick<HopsOptions, "name" | "log" | "isAlive" | "whenEnded"> {
  /** Opens the monitor stream of a hop for connections with our segment. */
  readonly open: (hop: NextHop, signal: AbortSignal) => AsyncIterable<ConnectionEvent>;
}

export interface Followers extends AsyncDisposable {
  follow: Hops["follow"];
  isBack: OpenHops["isBack"];
}

interface CheckedEvent extends Pick<ConnectionEvent, "type" | "connections"> {
  readonly tooLarge: ReadonlySet<Connection>;
}

/** Everybody who follows one hop. */
interface Following {
  readonly byId: Map<string, (event: HopEvent) => void>;
  readonly stop: AbortController;
  /** Aborted: the hop is there again, so the next try is now. */
  back: AbortController;
  readonly running: Promise<void>;
}

/** One monitor stream a hop, open while anybody follows it. */
export function createFollowers({ name, log, isAlive, whenEnded, open }: FollowersOptions): Followers {
  const hops = new Map<string, Following>();

  const end = (hop: NextHop, { byId, stop }: Pick<Following, "byId" | "stop">) => {
    stop.abort();
    if (hops.get(hop.url)?.stop === stop) hops.delete(hop.url);
    for (const onEvent of byId.values()) onEvent({ kind: "down" });
  };

  const start = (hop: NextHop): Following => {
    const stop = new AbortController();
    const byId: Following["byId"] = new Map();
    const state = { byId, stop, back: new AbortController() };
    const following = Object.assign(state, { running: run(hop, state) });
    hops.set(hop.url, following);
    const watch = whenEnded?.(hop, () => end(hop, following));
    stop.signal.addEventListener("abort", () => watch?.[Symbol.dispose](), { once: true });
    return following;
  };

  const run = async (hop: NextHop, following: Omit<Following, "running">): Promise<void> => {
    const { byId } = following;
    const { signal } = following.stop;
    const backoff = createBackoff();
    let isFirst = true;
    while (!signal.aborted) {
      try {
        for await (const event of open(hop, signal)) {
          backoff.reset();
          tell(name, checked(event, hop, log), byId, isFirst);
          isFirst = false;
        }
      } catch (err) {
        if (!signal.aborted) log.info({ peer: hop.url, err }, "monitor stream of the next hop broke");
      }
      if (signal.aborted) return;
      if (isAlive?.(hop) === false) {
        end(hop, following);
        return;
      }
      const either = AbortSignal.any([signal, following.back.signal]);
      await delay(backoff.next(), either).catch(() => undefined);
      if (!following.back.signal.aborted) continue;
      following.back = new AbortController();
      backoff.reset();
    }
  };

  return {
    follow(hop, id, onEvent) {
      const following = hops.get(hop.url) ?? start(hop);
      following.byId.set(id, onEvent);
      return {
        [Symbol.dispose]() {
          if (following.byId.get(id) !== onEvent) return;
          following.byId.delete(id);
          if (following.byId.size > 0) return;
          following.stop.abort();
          if (hops.get(hop.url) === following) hops.delete(hop.url);
        },
      };
    },
    isBack: (url) => hops.get(url)?.back.abort(),
    async [Symbol.asyncDispose]() {
      const all = [...hops.values()];
      hops.clear();
      for (const { stop } of all) stop.abort();
      await Promise.all(all.map(({ running }) => running));
    },
  };
}

/** An update is held to the limits of an answer; one that exceeds them says no more than that the connection is there. */
function checked(event: ConnectionEvent, hop: NextHop, log: Logger): CheckedEvent {
  const tooLarge = new Set<Connection>();
  for (const connection of Object.values(event.connections)) {
    try {
      checkConnectionLimits(connection);
    } catch (err) {
      log.debug({ peer: hop.url, err }, "news of the next hop was refused");
      tooLarge.add(connection);
    }
  }
  return { ...event, tooLarge };
}

/**
 * Hands an event to those whose connections it concerns. After the stream was opened again, what the hop does not list any more
 * is lost; on the first list nothing is, since a connection and the stream may cross.
 */
function tell(name: string, event: CheckedEvent, byId: Following["byId"], isFirst: boolean): void {
  const listed = new Set<string>();
  for (const connection of Object.values(event.connections)) {
    const at = ownIndexIn(connection, name);
    const segments = connection.path?.pathSegments ?? [];
    const id = at === undefined ? undefined : segments[at]?.id;
    if (at === undefined || id === undefined) continue;
    listed.add(id);
    const kind = event.type === ConnectionEventType.DELETE ? "down" : "update";
    const behind = segments[at + 1]?.id;
    if (kind === "update" && event.tooLarge.has(connection)) continue;
    byId.get(id)?.(kind === "down" ? { kind, behind } : { kind, connection, behind });
  }
  if (event.type !== ConnectionEventType.INITIAL_STATE_TRANSFER || isFirst) return;
  for (const [id, onEvent] of byId) if (!listed.has(id)) onEvent({ kind: "lost" });
}

/** Where our segment stands in the hop's view: at the hop's own index or just before it. */
function ownIndexIn({ path }: Connection, name: string): number | undefined {
  if (path === undefined) return undefined;
  return [path.index, path.index - 1].find((index) => path.pathSegments[index]?.name === name);
}
