/** Keeps WireGuard tunnels going when paths come back and addresses change (docs/protocol.md, "Wires"). */
import type { Clock } from "../../sdk/clock.ts";
import type { Logger } from "../../sdk/log.ts";
import type { WireguardDriver } from "../kernel/wireguard/driver.ts";
import { createPeers } from "../kernel/wireguard/peers.ts";
import type { PeersOptions } from "../kernel/wireguard/peers.ts";
import type { SessionTimes } from "../plan/session.ts";
import type { Side } from "../wire.ts";
import { watchOwnAddresses } from "./own-addresses.ts";
import { watchSessions } from "./sessions.ts";

export interface TunnelWatch extends Disposable {
  /** A wire that has been made or kept, or, `found`, is of an earlier life. */
  follow(wireId: string, side: Side, how: "made" | "kept" | "found"): void;
  drop(wireId: string): void;
}

export interface TunnelWatchOptions extends Omit<PeersOptions, "driver"> {
  /** Undefined on nodes without WireGuard: nothing is watched there. */
  readonly driver: WireguardDriver | undefined;
  readonly turn: (wireId: string, work: () => Promise<void>) => Promise<void>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly times?: SessionTimes;
}

export function watchTunnels(options: TunnelWatchOptions): TunnelWatch {
  const { driver, turn, clock, log, times } = options;
  const nothing = () => undefined;
  if (driver === undefined) return { follow: nothing, drop: nothing, [Symbol.dispose]: nothing };
  const stack = new DisposableStack();
  const peers = createPeers({ ...options, driver });
  const followed = new Set<string>();
  const sessions = stack.use(watchSessions({ ...peers, turn, clock, log, ...(times && { times }) }));
  const beatAll = () => {
    for (const wireId of followed)
      turn(wireId, () => peers.beat(wireId)).catch((err: unknown) => {
        log.info({ connection: wireId, err }, "telling a peer where this node is failed");
      });
  };
  stack.use(watchOwnAddresses(clock, beatAll));
  return {
    follow(wireId, side, how) {
      followed.add(wireId);
      if (how === "made") sessions.drop(wireId);
      sessions.add(wireId, side, how === "found");
    },
    drop(wireId) {
      followed.delete(wireId);
      peers.forget(wireId);
      sessions.drop(wireId);
    },
    [Symbol.dispose]: () => stack.dispose(),
  };
}
