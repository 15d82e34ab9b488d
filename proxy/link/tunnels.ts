/**
 * Ways to a side that cannot be dialled (docs/links.md, "Tunnel").
 *
 *     session pool --unix--> this side --Keep: open-tunnel, ticket--> other side
 *                            this side <--TLS "nsm-tunnel", ticket--- other side --tcp--> its own listener
 *
 * Inside runs the same mutual TLS as everywhere: neither side's tunnel sees a byte of a call.
 */
import { createHash, randomBytes } from "node:crypto";
import { connect as connectTcp } from "node:net";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { TLSSocket } from "node:tls";
import { join } from "node:path";
import type { Clock } from "../../sdk/clock.ts";
import { NsmError, messageOf } from "../../sdk/errors.ts";
import { checkSocketPath, parseAddress } from "../../sdk/grpc/address.ts";
import { openListener } from "../../sdk/grpc/listener.ts";
import type { Listener } from "../../sdk/grpc/listener.ts";
import type { Peer } from "../../sdk/grpc/peer.ts";
import { secureContextOptions, verifyPeer } from "../../sdk/grpc/tls.ts";
import type { Logger } from "../../sdk/log.ts";
import type { X509Source } from "../../sdk/spiffe/source.ts";
import { verifySvid } from "../../sdk/spiffe/verify.ts";
import type { LinkRecord } from "./state.ts";
import { splice } from "./splice.ts";

export const TUNNEL = "nsm-tunnel";
const TICKET_LENGTH = 32;
const TICKET_MS = 3000;
const DOOR_NAME_LENGTH = 16;
/** Waiting for the other side at once, of one link. */
const MOST_WAITING = 32;
/** Open at once, of one link. */
const MOST_OPEN = 128;

export interface TunnelDoors extends AsyncDisposable {
  /** URL of the socket behind which the other side is. */
  urlOf(link: LinkRecord): string;
  /** Makes the socket. `ask` sends a ticket to the other side; throws when it cannot. */
  open(link: LinkRecord, ask: (ticket: string) => void): Promise<void>;
  /** Ends the socket and every tunnel behind it. */
  close(link: LinkRecord): Promise<void>;
  /** A connection that the other side has opened, with a ticket in it. */
  accept(peer: Peer, socket: TLSSocket): void;
}

interface Door {
  readonly link: LinkRecord;
  readonly sockets: Set<Socket>;
  readonly listener: Promise<Listener>;
}

interface Waiting {
  readonly link: LinkRecord;
  readonly socket: Socket;
  /** Ends the wait. */
  readonly timer: Disposable;
}

/**
 * Where the socket for a domain is: of one length, whatever the domain is called, since few bytes fit into such a path (unix(7)).
 */
export function doorPath(directory: string, domain: string): string {
  const name = createHash("sha256").update(domain).digest("hex").slice(0, DOOR_NAME_LENGTH);
  return join(directory, `${name}.sock`);
}

/** `directory`: private to this process's user. Throws INVALID_ARGUMENT `bad-address`: no socket can be made there. */
export function createTunnelDoors(directory: string, clock: Clock, log: Logger): TunnelDoors {
  checkSocketPath(doorPath(directory, ""), "name a shorter directory (NSM_PROXY_STATE_DIR)");
  const doors = new Map<string, Door>();
  const waiting = new Map<string, Waiting>();
  const pathOf = ({ domain }: LinkRecord) => doorPath(directory, domain);

  const enter = (
    { link, sockets }: Omit<Door, "listener">,
    socket: Socket,
    ask: (ticket: string) => void,
  ) => {
    const ticket = randomBytes(TICKET_LENGTH / 2).toString("hex");
    const timer = clock.timer(TICKET_MS, () => socket.destroy());
    const isWaiting = [...waiting.values()].filter((each) => each.link.id === link.id).length;
    sockets.add(socket);
    waiting.set(ticket, { link, socket, timer });
    socket.on("error", () => socket.destroy());
    socket.once("close", () => {
      timer[Symbol.dispose]();
      waiting.delete(ticket);
      sockets.delete(socket);
    });
    try {
      if (isWaiting >= MOST_WAITING || sockets.size > MOST_OPEN)
        throw new NsmError("RESOURCE_EXHAUSTED", "too-many-tunnels", `${link.domain}: too many tunnels`);
      ask(ticket);
    } catch (err) {
      log.debug({ domain: link.domain, err }, "no tunnel");
      socket.destroy();
    }
  };
  const shut = async ({ sockets, listener }: Door) => {
    const opened = await listener.catch(() => undefined); // whoever opened it was told
    await opened?.[Symbol.asyncDispose]();
    for (const socket of sockets) socket.destroy();
  };

  return {
    urlOf: (link) => `unix://${pathOf(link)}`,
    async open(link, ask) {
      if (doors.has(link.id)) return;
      // Whole before somebody comes in: that may be before the listener is told to be open.
      const inside = { link, sockets: new Set<Socket>() };
      const listener = openListener({ kind: "unix", path: pathOf(link) }, 0o600, (socket) =>
        enter(inside, socket, ask),
      );
      const door: Door = { ...inside, listener };
      doors.set(link.id, door);
      try {
        await listener;
      } catch (error) {
        if (doors.get(link.id) === door) doors.delete(link.id);
        throw error;
      }
    },
    async close({ id }) {
      const door = doors.get(id);
      doors.delete(id);
      if (door !== undefined) await shut(door);
    },
    accept(peer, socket) {
      const timer = clock.timer(TICKET_MS, () => socket.destroy());
      socket.on("error", () => socket.destroy());
      const onReadable = () => {
        const bytes: unknown = socket.read(TICKET_LENGTH);
        if (!Buffer.isBuffer(bytes)) return;
        timer[Symbol.dispose]();
        socket.off("readable", onReadable);
        const found = waiting.get(bytes.toString("latin1"));
        if (found === undefined || found.link.proxyId !== peer.spiffeId) {
          socket.destroy();
          return;
        }
        waiting.delete(bytes.toString("latin1"));
        found.timer[Symbol.dispose]();
        splice(socket, found.socket);
      };
      socket.on("readable", onReadable);
      socket.once("close", () => timer[Symbol.dispose]());
    },
    async [Symbol.asyncDispose]() {
      const all = [...doors.values()];
      doors.clear();
      await Promise.all(all.map(shut));
    },
  };
}

export interface TunnelEndOptions {
  readonly source: X509Source;
  readonly clock: Clock;
  readonly log: Logger;
  /** Where this proxy itself listens. */
  readonly ownListener: () => string;
}

/** The side that dials: opens what the other asked for. Its connections end when `signal` aborts. */
export function openTunnelEnd(
  { source, clock, log, ownListener }: TunnelEndOptions,
  { url, link, ticket, signal }: { url: string; link: LinkRecord; ticket: string; signal: AbortSignal },
): void {
  const address = parseAddress(url);
  if (address.kind !== "tcp" || signal.aborted) return;
  const own = source.current();
  const { host, port } = address;
  const outer = connectTls({
    host,
    port,
    ...secureContextOptions(own),
    ALPNProtocols: [TUNNEL],
    rejectUnauthorized: false,
  });
  const end = () => outer.destroy();
  const timer = clock.timer(TICKET_MS, end);
  signal.addEventListener("abort", end, { once: true });
  outer.on("error", (err) => log.debug({ domain: link.domain, err }, "tunnel failed"));
  outer.once("close", () => {
    timer[Symbol.dispose]();
    signal.removeEventListener("abort", end);
  });
  outer.once("secureConnect", () => {
    timer[Symbol.dispose]();
    try {
      const { id } = verifyPeer(outer, own, verifySvid, clock.now(), TUNNEL);
      if (id !== link.proxyId) throw new NsmError("UNAUTHENTICATED", "peer-refused", `${url} is ${id}`);
      const inner = connectOwn(ownListener());
      outer.write(ticket);
      splice(outer, inner);
    } catch (err) {
      log.warn({ domain: link.domain, err: messageOf(err) }, "tunnel refused");
      outer.destroy();
    }
  });
}

/** Every address is also the loopback's. */
function connectOwn(url: string): Socket {
  const address = parseAddress(url);
  if (address.kind === "unix") return connectTcp({ path: address.path });
  const { host, port } = address;
  const any: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1" };
  return connectTcp({ host: any[host] ?? host, port });
}
