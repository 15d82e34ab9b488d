/** The contract of the data plane: what a wire is, and what is found of one in the kernel. */
/** A process whose network namespace is meant, and the inode that the namespace must have. */
export interface NetnsRef {
  readonly pid: number;
  readonly inode: bigint;
  /** What `netnsIdentity` said of it: of what is remembered, because the inode alone may be the next namespace's by then. */
  readonly identity?: string;
}

/**
 * Indexes of the devices of wires, above the kernel's own numbers: what tells them from a pod's other interfaces. A clash is a
 * one in a thousand million event and just retried.
 */
export const WIRE_IFINDEX = { first: 2 ** 20, last: 2 ** 30 } as const;

/** An interface in a pod. */
export interface KernelSide {
  readonly kind: "kernel";
  readonly netns: NetnsRef;
  readonly interfaceName: string;
  /** Short text that ties the device to its claimant; a device is adopted only under the same one. */
  readonly binding: string;
  /** Short text that names the process that asked, written beside it. Default unknown. */
  readonly owner?: string;
  /** The interface gets no addresses and no routes: its owner passes packets on. Default false. */
  readonly isBare?: boolean;
  /** The pod's owner wants routes for (nearly) everything, if the other end asks for them. Default false. */
  readonly acceptsDefaultRoute?: boolean;
  /** Addresses that stay on the pod's own network, whatever routes the other end asks for. Default none. */
  readonly protectedAddresses?: readonly string[];
}

/** A tunnel to another node; the UDP socket lives in the node's namespace. */
export interface VxlanSide {
  readonly kind: "vxlan";
  readonly localIp: string;
  readonly remoteIp: string;
  /** The same at both ends. */
  readonly port: number;
  readonly vni: number;
}

/** A tunnel to another node; keys are 32 bytes each. */
export interface WireguardSide {
  readonly kind: "wireguard";
  readonly localIp: string;
  readonly remoteIp: string;
  readonly localPort: number;
  readonly remotePort: number;
  readonly privateKey: Uint8Array;
  readonly remotePublicKey: Uint8Array;
}

export interface WireRoute {
  readonly prefix: string;
  readonly nextHop?: string;
}

/** As in the IPContext: texts, empty for any. */
export interface WirePolicy {
  readonly from: string;
  readonly proto: string;
  readonly srcPort: string;
  readonly dstPort: string;
  /** None: a default route. */
  readonly routes: readonly WireRoute[];
}

/** The addresses of both ends as in the IPContext of the connection, CIDR texts. */
export interface WireIp {
  readonly srcAddresses: readonly string[];
  readonly dstAddresses: readonly string[];
  readonly srcRoutes: readonly WireRoute[];
  readonly dstRoutes: readonly WireRoute[];
  readonly neighbors: readonly { readonly ip: string; readonly mac: string }[];
  /** Rules for the client's pod. Default none. */
  readonly policies?: readonly WirePolicy[];
  /** Addresses and prefixes that the client asked with: for the endpoint's pod they are a stranger's word. Default none. */
  readonly brought?: readonly string[];
}

/** One connection's stretch through this node: two pods, or a pod and a tunnel. */
export interface Wire {
  /** Its client says that it does not work: the devices are looked at, however well they are known. Default false. */
  readonly isDoubted?: boolean;
  /** The forwarder's own path segment id. */
  readonly id: string;
  readonly payload: "IP" | "ETHERNET";
  /** 0 = the device's default. */
  readonly mtu: number;
  /** Towards the client: the source addresses are its. */
  readonly client: KernelSide | VxlanSide | WireguardSide;
  readonly endpoint: KernelSide | VxlanSide | WireguardSide;
  readonly ip: WireIp;
  readonly srcMac?: string;
  readonly dstMac?: string;
}

export type Side = "client" | "endpoint";

/** A device of an earlier life of this forwarder, as the kernel shows it. Keys are there for wireguard only. */
export interface FoundDevice {
  readonly wireId: string;
  readonly side: Side;
  readonly binding: string;
  readonly owner?: string;
  readonly netns: NetnsRef;
  readonly interfaceName: string;
  readonly ifindex: number;
  readonly kind: "veth" | "vxlan" | "wireguard" | "tun";
  readonly vni?: number;
  readonly remoteIp?: string;
  readonly port?: number;
  readonly privateKey?: Uint8Array;
  readonly publicKey?: Uint8Array;
  readonly remotePublicKey?: Uint8Array;
  readonly remotePort?: number;
}
