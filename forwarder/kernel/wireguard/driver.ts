/** What the data plane needs of WireGuard, whether the kernel has it or a program stands in for it. */
import type { NewDevice } from "../../../sdk/netlink/link.ts";
import type { Netns } from "../netns.ts";
import type { WireguardShape } from "../../plan/plan.ts";

/** A device as it is; the private key too, which is how a restarted forwarder keeps a tunnel. */
export interface WireguardState {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly port: number;
  readonly remotePublicKey: Uint8Array | undefined;
  readonly remoteIp: string | undefined;
  readonly remotePort: number | undefined;
  /** By the wall clock of then; undefined before the first. */
  readonly lastHandshakeMs: number | undefined;
  /** Of the peer, since it was made; handshakes count. */
  readonly rxBytes: number;
}

/** A peer and where it is. */
export type PeerPlace = Pick<WireguardShape, "remotePublicKey" | "remoteIp" | "remotePort">;

export interface WireguardDriver {
  readonly mode: "kernel" | "userspace";
  /** The kind of link that its devices are. */
  readonly linkKind: "wireguard" | "tun";
  /** Makes a device in a pod, configured and down. Throws KernelError EEXIST when the name is taken. */
  create(wireId: string, device: NewDevice, shape: WireguardShape): Promise<void>;
  /** Undefined when there is no such device or nobody serves it. */
  read(wireId: string, netns: Netns, ifindex: number): Promise<WireguardState | undefined>;
  /** Sets keys, port and peer anew: an earlier session ends, and what was remembered of the peer is forgotten. */
  configure(wireId: string, netns: Netns, ifindex: number, shape: WireguardShape): Promise<void>;
  /** Makes the peer alone anew: without a session, and beginning a handshake at once. */
  renewPeer(wireId: string, netns: Netns, ifindex: number, peer: PeerPlace): Promise<void>;
  /** Says where the peer is, which is told so by a packet at once; its session stays. */
  movePeer(wireId: string, netns: Netns, ifindex: number, peer: PeerPlace): Promise<void>;
  /** Sends the peer, where it is, a packet at once, from where this node is now: it answers there from then on. */
  beat(wireId: string, netns: Netns, ifindex: number, peer: PeerPlace): Promise<void>;
  /** Once the device is up: resolves when it can carry packets. UNAVAILABLE `wireguard-port-busy`. */
  ready(wireId: string, shape: WireguardShape, signal: AbortSignal): Promise<void>;
  /** Once the device is deleted: resolves when nothing of it is left. */
  forget(wireId: string): Promise<void>;
}

/** WireGuard on this node, or why not and what helps. */
export type WireguardSupport =
  | { readonly mode: "kernel" | "userspace"; readonly driver: WireguardDriver }
  | { readonly mode: "none"; readonly reason: string; readonly remedy: string };
