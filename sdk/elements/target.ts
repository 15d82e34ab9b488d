/** Where the next hop is, as one element chose it for those after it. */
import type { Connection } from "../../api/gen/connection_pb.js";

/** A process that serves NetworkService and MonitorConnection. */
export interface NextHop {
  /** `tcp://host:port` or `unix:///path`, as it was announced. */
  readonly url: string;
  /** Session pins: which SPIFFE ids may answer there. */
  readonly expect?: (spiffeId: string) => boolean;
  /** Who it is, and where it is by then: for Closes that it could not be told. The same place unless told. */
  readonly again?: {
    readonly key: string;
    readonly find: () => NextHop | undefined | Promise<NextHop | undefined>;
  };
}

/** What a Close gets whose next hop nobody knows any more: it ends here. */
export const NOWHERE: NextHop = { url: "" };

export interface WithNextHop {
  readonly nextHop: NextHop;
}

export interface WithLastHop {
  /** Where the connection has led until now. */
  readonly lastHop: NextHop | undefined;
}

export interface WithOldWay {
  /** A connection that is known by its caller's path alone, which led to another hop than it does from now on. */
  readonly oldWay?: { readonly connection: Connection; readonly hop: NextHop };
}

/** True for a hop on this node, reached by a unix socket. */
export function isLocal(hop: NextHop): boolean {
  return hop.url.startsWith("unix:") || hop.url.startsWith("inode:");
}

/**
 * What followers of a hop's monitor stream are told of one connection. `behind`: id of the hop's own segment, since a hop that was left
 * and chosen again may have two with the same segment of ours.
 */
export type HopEvent =
  | { readonly kind: "update"; readonly connection: Connection; readonly behind?: string | undefined }
  /** The hop deleted it, or the process behind a local socket is dead or stopped: then without `behind`. */
  | { readonly kind: "down"; readonly behind?: string | undefined }
  /** The hop came back and does not know it: a refresh makes it known again. */
  | { readonly kind: "lost" };
