/** Who is at the other side of one session: its TLS identity and, on a unix socket, its process. */
import type { X509Certificate } from "node:crypto";
import type { X509Snapshot } from "../spiffe/source.ts";

/** The process behind a unix socket, as the kernel told it at accept (SO_PEERCRED, SO_PEERPIDFD). */
export interface PeerProcess {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** Open while the session lives; undefined where the kernel has no SO_PEERPIDFD (before 6.5). */
  readonly pidfd: number | undefined;
  /** True while that very process (not a recycled pid) is alive. */
  isAlive(): boolean;
}

export interface Peer {
  /** Names the session within this process (`conn-17`). */
  readonly session: string;
  /** SPIFFE id of the verified leaf. */
  readonly spiffeId: string;
  /** Verified leaf. */
  readonly certificate: X509Certificate;
  /** The identity that *we* showed in this session: tokens for this peer are signed with its key. */
  readonly own: X509Snapshot;
  readonly transport: "unix" | "tcp";
  /** Where a TCP connection comes from, as this side sees it. */
  readonly remoteAddress?: string;
  /** Only on unix sockets. */
  readonly process: PeerProcess | undefined;
}
