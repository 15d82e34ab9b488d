/** The side that was joined: holds the streams that other sides dialled, asks for answers, and finds its own way to them. */
import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { LinkMessageSchema } from "../../api/gen/link_pb.js";
import type { KeepRequest, LinkMessage } from "../../api/gen/link_pb.js";
import { NsmError, messageOf } from "../../sdk/errors.ts";
import { createEventQueue } from "../../sdk/event-queue.ts";
import type { Caller } from "../../sdk/grpc/caller.ts";
import { patientTimer } from "../../sdk/reach.ts";
import type { Hub, Way } from "./hub.ts";
import type { LinkRecord } from "./state.ts";
import type { TunnelDoors } from "./tunnels.ts";

/** A ping each; what is said at rest. */
export const PING_MS = 1000;
/** A side that says nothing for so long is away. */
export const SILENT_MS = 3000;
/** A stream that ends is opened anew at once when nothing but its session has ended. */
export const GRACE_MS = 1500;
/** Between two tries to reach a side that keeps its stream. */
const RETRY_MS = 1000;
/** Things that wait for a slow reader; a link has little to say. */
const MOST_QUEUED = 256;

export interface KeepingOptions {
  readonly hub: Hub;
  readonly doors: TunnelDoors;
  /** Calls the other side by that way, to see who is there and that it works. Throws when it does not. */
  readonly verify: (link: LinkRecord, way: Way) => Promise<void>;
}

export interface Keeping extends Disposable {
  keep(request: KeepRequest, caller: Pick<Caller, "peer" | "signal">): AsyncGenerator<LinkMessage>;
  pong(link: LinkRecord, number: bigint): void;
  /** Says the last word, and ends the stream. */
  end(link: LinkRecord): void;
  /** Sends a ticket for a tunnel. Throws UNAVAILABLE `domain-silent` when there is no stream. */
  askForTunnel(link: LinkRecord, ticket: string): void;
}

interface Kept {
  readonly send: (message: MessageInitShape<typeof LinkMessageSchema>) => void;
  readonly end: (error?: NsmError) => void;
  readonly sent: Map<bigint, number>;
  /** Ends the stream of a side that says nothing from now on. */
  silence: Disposable | undefined;
}

export function createKeeping({ hub, doors, verify }: KeepingOptions): Keeping {
  const { clock } = hub;
  const streams = new Map<string, Kept>();
  const graces = new Map<string, Disposable>();
  let isClosed = false;

  const open = (link: LinkRecord, signal: AbortSignal) => {
    const queue = createEventQueue<LinkMessage>(MOST_QUEUED, signal);
    const kept: Kept = {
      send: (message) => queue.push(create(LinkMessageSchema, message)),
      end: (error) => queue.end(error),
      sent: new Map(),
      silence: undefined,
    };
    streams.get(link.id)?.end(); // the one that dialled has replaced it
    streams.set(link.id, kept);
    graces.get(link.id)?.[Symbol.dispose]();
    graces.delete(link.id);
    return { queue, kept };
  };

  /** Returns what ends it. */
  const startPings = (link: LinkRecord, kept: Kept): Disposable => {
    let timer: Disposable | undefined;
    let number = 0n;
    const ping = () => {
      kept.sent.set(++number, clock.monotonic());
      kept.send({ ping: { number } });
      timer = clock.timer(PING_MS, ping);
    };
    expectNews(link, kept);
    ping();
    return {
      [Symbol.dispose]() {
        timer?.[Symbol.dispose]();
        kept.silence?.[Symbol.dispose]();
      },
    };
  };

  const expectNews = (link: LinkRecord, kept: Kept) => {
    kept.silence?.[Symbol.dispose]();
    const fallSilent = () => {
      const why = `no answer for ${SILENT_MS / 1000} s`;
      hub.wentDown(link, why);
      kept.end(new NsmError("UNAVAILABLE", "domain-silent", `${link.domain}: ${why}`));
    };
    kept.silence = patientTimer(clock, SILENT_MS, fallSilent, PING_MS);
  };

  /** Directly if that works, else through a tunnel; again until it works or the stream has ended. */
  const findWay = async (link: LinkRecord, isOver: () => boolean): Promise<void> => {
    const known = hub.live(link.id).way;
    const { addresses } = hub.links().find(({ id }) => id === link.id) ?? link;
    const ways: readonly Way[] = [
      ...(known === undefined ? [] : [known]),
      ...addresses.map((url) => ({ kind: "direct", url }) as const),
      { kind: "tunnel", url: doors.urlOf(link) },
    ];
    for (const way of ways) {
      try {
        await verify(link, way);
        if (!isOver()) hub.wentUp(link, way, true);
        return;
      } catch (err) {
        if (isOver()) return;
        hub.log.debug({ domain: link.domain, way: way.kind, err }, "the other side is not reached so");
        hub.live(link.id).why = messageOf(err);
      }
    }
    clock.timer(RETRY_MS, () => {
      if (!isOver()) void findWay(link, isOver);
    });
  };

  return {
    async *keep({ linkId }, { peer, signal }) {
      const link = hub.linkOf(peer.spiffeId, linkId);
      if (link.dials || isClosed)
        throw new NsmError(
          "FAILED_PRECONDITION",
          "other-direction",
          `${hub.own.domain} dials this link itself`,
        );
      const { queue, kept } = open(link, signal);
      const isOver = () => streams.get(link.id) !== kept || signal.aborted;
      using pings = startPings(link, kept);
      void pings;
      if (peer.remoteAddress !== undefined) kept.send({ observedAddress: peer.remoteAddress });
      void findWay(link, isOver);
      try {
        yield* queue;
      } finally {
        if (streams.get(link.id) === kept) {
          streams.delete(link.id);
          if (!isClosed)
            graces.set(
              link.id,
              clock.timer(GRACE_MS, () => hub.wentDown(link, "the other side has gone away")),
            );
        }
      }
    },
    pong(link, number) {
      const kept = streams.get(link.id);
      const sentMs = kept?.sent.get(number);
      if (kept === undefined || sentMs === undefined) return;
      expectNews(link, kept);
      for (const each of kept.sent.keys()) if (each <= number) kept.sent.delete(each);
      hub.live(link.id).rttMs = clock.monotonic() - sentMs;
    },
    end({ id }) {
      const kept = streams.get(id);
      kept?.send({ unlinked: true });
      kept?.end();
      graces.get(id)?.[Symbol.dispose]();
      graces.delete(id);
    },
    askForTunnel(link, ticket) {
      const kept = streams.get(link.id);
      if (kept === undefined)
        throw new NsmError("UNAVAILABLE", "domain-silent", `${link.domain} keeps no stream to this side`);
      kept.send({ openTunnel: { ticket } });
    },
    [Symbol.dispose]() {
      isClosed = true;
      for (const kept of streams.values()) kept.end();
      for (const grace of graces.values()) grace[Symbol.dispose]();
    },
  };
}
