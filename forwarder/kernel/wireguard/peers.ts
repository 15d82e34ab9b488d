/** The peer of each WireGuard tunnel of this node: how it is, and that a handshake with it begins (docs/protocol.md, "Wires"). */
import type { Device } from "../device.ts";
import { findNetns } from "../netns.ts";
import type { Netns } from "../netns.ts";
import type { PeerPlace, WireguardDriver, WireguardState } from "./driver.ts";

export interface PeersOptions {
  readonly driver: WireguardDriver;
  readonly deviceOf: (wireId: string) => Device | undefined;
  /** Where the connection says that the peer is; undefined until a Request has said so. */
  readonly toldOf: (wireId: string) => PeerPlace | undefined;
}

export interface Peers {
  /** Undefined when the tunnel is gone. */
  look(wireId: string): Promise<{ handshakeMs: number | undefined; rxBytes: number } | undefined>;
  /** Makes the peer anew, which ends its session, and begins a handshake towards where it was at the last look, or is said to be. */
  restart(wireId: string, towards: "learned" | "told"): Promise<void>;
  /** A packet from where this node is now. */
  beat(wireId: string): Promise<void>;
  forget(wireId: string): void;
}

/** State: each peer as it was at the last look, for the restart that comes of it. */
export function createPeers({ driver, deviceOf, toldOf }: PeersOptions): Peers {
  const seen = new Map<string, WireguardState>();
  async function withDevice<T>(
    wireId: string,
    work: (netns: Netns, ifindex: number) => Promise<T>,
  ): Promise<T | undefined> {
    const device = deviceOf(wireId);
    using netns = device && findNetns(device.netns);
    return device && netns && (await work(netns, device.ifindex));
  }
  return {
    async look(wireId) {
      const state = await withDevice(wireId, (netns, ifindex) => driver.read(wireId, netns, ifindex));
      if (state === undefined) seen.delete(wireId);
      else seen.set(wireId, state);
      return state && { handshakeMs: state.lastHandshakeMs, rxBytes: state.rxBytes };
    },
    async restart(wireId, towards) {
      const told = toldOf(wireId);
      const peer = (towards === "told" ? told : undefined) ?? learned(seen.get(wireId)) ?? told;
      if (peer !== undefined)
        await withDevice(wireId, (netns, ifindex) => driver.renewPeer(wireId, netns, ifindex, peer));
    },
    async beat(wireId) {
      await withDevice(wireId, async (netns, ifindex) => {
        const peer = learned(await driver.read(wireId, netns, ifindex)) ?? toldOf(wireId);
        if (peer !== undefined) await driver.beat(wireId, netns, ifindex, peer);
      });
    },
    forget: (wireId) => void seen.delete(wireId),
  };
}

function learned(state: WireguardState | undefined): PeerPlace | undefined {
  const { remotePublicKey, remoteIp, remotePort } = state ?? {};
  if (remotePublicKey === undefined || remoteIp === undefined || remotePort === undefined) return undefined;
  return { remotePublicKey, remoteIp, remotePort };
}
