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
  /** Makes the peer anew, which ends its session, and begins a handshake towards where it was last, or is said to be. */
  restart(wireId: string, towards: "learned" | "told"): Promise<void>;
  /** A packet from where this node is now. */
  beat(wireId: string): Promise<void>;
}

export function createPeers({ driver, deviceOf, toldOf }: PeersOptions): Peers {
  async function withPeer<T>(
    wireId: string,
    work: (state: WireguardState, netns: Netns, ifindex: number) => Promise<T>,
  ): Promise<T | undefined> {
    const device = deviceOf(wireId);
    using netns = device && findNetns(device.netns);
    if (device === undefined || netns === undefined) return undefined;
    const state = await driver.read(wireId, netns, device.ifindex);
    return state && (await work(state, netns, device.ifindex));
  }
  return {
    look: (wireId) =>
      withPeer(wireId, ({ lastHandshakeMs, rxBytes }) =>
        Promise.resolve({ handshakeMs: lastHandshakeMs, rxBytes }),
      ),
    async restart(wireId, towards) {
      await withPeer(wireId, async (state, netns, ifindex) => {
        const told = toldOf(wireId);
        const peer = (towards === "told" ? told : undefined) ?? learned(state) ?? told;
        if (peer !== undefined) await driver.renewPeer(wireId, netns, ifindex, peer);
      });
    },
    async beat(wireId) {
      await withPeer(wireId, async (state, netns, ifindex) => {
        const peer = learned(state) ?? toldOf(wireId);
        if (peer !== undefined) await driver.beat(wireId, netns, ifindex, peer);
      });
    },
  };
}

function learned({ remotePublicKey, remoteIp, remotePort }: WireguardState): PeerPlace | undefined {
  if (remotePublicKey === undefined || remoteIp === undefined || remotePort === undefined) return undefined;
  return { remotePublicKey, remoteIp, remotePort };
}
