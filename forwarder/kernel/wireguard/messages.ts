/** Generic netlink messages of WireGuard (linux/wireguard.h). */
import {
  bytes,
  decodeAttributes,
  listAttributes,
  nest,
  u16,
  u32,
  u8,
} from "../../../sdk/netlink/attribute.ts";
import type { Attribute } from "../../../sdk/netlink/attribute.ts";
import { GENL_HEADER, genericRequest } from "../../../sdk/netlink/generic.ts";
import { ipBytes, ipText } from "../../../sdk/netlink/ip.ts";
import { NLM_F } from "../../../sdk/netlink/message.ts";
import type { Message, Request } from "../../../sdk/netlink/message.ts";
import type { WireguardShape } from "../../plan/plan.ts";
import type { PeerPlace, WireguardState } from "./driver.ts";

const WG_CMD = { GET_DEVICE: 0, SET_DEVICE: 1 } as const;
const WGDEVICE_A = {
  IFINDEX: 1,
  PRIVATE_KEY: 3,
  PUBLIC_KEY: 4,
  FLAGS: 5,
  LISTEN_PORT: 6,
  PEERS: 8,
} as const;
const WGDEVICE_F_REPLACE_PEERS = 1;
const WGPEER_A = {
  PUBLIC_KEY: 1,
  FLAGS: 3,
  ENDPOINT: 4,
  PERSISTENT_KEEPALIVE_INTERVAL: 5,
  LAST_HANDSHAKE_TIME: 6,
  RX_BYTES: 7,
  ALLOWEDIPS: 9,
} as const;
const WGPEER_F_REPLACE_ALLOWEDIPS = 2;
const WGPEER_F_UPDATE_ONLY = 4;
const WGALLOWEDIP_A = { FAMILY: 1, IPADDR: 2, CIDR_MASK: 3 } as const;
const AF_INET = 2;
const AF_INET6 = 10;

/** Keeps the way through firewalls open; the same as the Go forwarders send. */
export const KEEPALIVE_SECONDS = 10;

/** One peer, which may carry any address: the wire's addresses are the endpoint's affair. */
export function setDevice(family: number, ifindex: number, shape: WireguardShape): Request {
  return setting(family, ifindex, [
    bytes(WGDEVICE_A.PRIVATE_KEY, shape.privateKey),
    u16(WGDEVICE_A.LISTEN_PORT, shape.localPort),
    ...onlyPeer(shape),
  ]);
}

/** Without what was known of it; the kernel begins a handshake because there are to be keepalives. */
export function setNewPeer(family: number, ifindex: number, peer: PeerPlace): Request {
  return setting(family, ifindex, onlyPeer(peer));
}

/** Where the peer is; all else of it stays. */
export function setPlace(family: number, ifindex: number, peer: PeerPlace): Request {
  const { remotePublicKey, remoteIp, remotePort } = peer;
  const endpoint = bytes(WGPEER_A.ENDPOINT, encodeEndpoint(remoteIp, remotePort));
  return setting(family, ifindex, [nest(WGDEVICE_A.PEERS, [existing(remotePublicKey, endpoint)])]);
}

/** A keepalive is sent when keepalives begin. */
export function setBeat(family: number, ifindex: number, remotePublicKey: Uint8Array): Request[] {
  return [0, KEEPALIVE_SECONDS].map((seconds) => {
    const interval = u16(WGPEER_A.PERSISTENT_KEEPALIVE_INTERVAL, seconds);
    return setting(family, ifindex, [nest(WGDEVICE_A.PEERS, [existing(remotePublicKey, interval)])]);
  });
}

function setting(family: number, ifindex: number, attributes: readonly Attribute[]): Request {
  return genericRequest(`configure wireguard ${ifindex}`, family, WG_CMD.SET_DEVICE, 0, [
    u32(WGDEVICE_A.IFINDEX, ifindex),
    ...attributes,
  ]);
}

function onlyPeer({ remotePublicKey, remoteIp, remotePort }: PeerPlace): readonly Attribute[] {
  const peer = nest(0, [
    bytes(WGPEER_A.PUBLIC_KEY, remotePublicKey),
    u32(WGPEER_A.FLAGS, WGPEER_F_REPLACE_ALLOWEDIPS),
    bytes(WGPEER_A.ENDPOINT, encodeEndpoint(remoteIp, remotePort)),
    u16(WGPEER_A.PERSISTENT_KEEPALIVE_INTERVAL, KEEPALIVE_SECONDS),
    nest(WGPEER_A.ALLOWEDIPS, [allowAll(AF_INET, 4), allowAll(AF_INET6, 16)]),
  ]);
  return [u32(WGDEVICE_A.FLAGS, WGDEVICE_F_REPLACE_PEERS), nest(WGDEVICE_A.PEERS, [peer])];
}

function existing(remotePublicKey: Uint8Array, change: Attribute): Attribute {
  return nest(0, [
    bytes(WGPEER_A.PUBLIC_KEY, remotePublicKey),
    u32(WGPEER_A.FLAGS, WGPEER_F_UPDATE_ONLY),
    change,
  ]);
}

/** A dump even for one device. */
export function getDevice(family: number, ifindex: number): Request {
  const attributes = [u32(WGDEVICE_A.IFINDEX, ifindex)];
  return genericRequest(`read wireguard ${ifindex}`, family, WG_CMD.GET_DEVICE, NLM_F.DUMP, attributes);
}

/** Of the first message of the dump: our devices have one peer. Undefined for a device without a key. */
export function decodeDevice({ body }: Message): WireguardState | undefined {
  const device = decodeAttributes(body.subarray(GENL_HEADER));
  const privateKey = device.bytes(WGDEVICE_A.PRIVATE_KEY);
  const publicKey = device.bytes(WGDEVICE_A.PUBLIC_KEY);
  if (privateKey === undefined || publicKey === undefined) return undefined;
  const [first] = listAttributes(device.bytes(WGDEVICE_A.PEERS) ?? Buffer.alloc(0));
  const peer = decodeAttributes(first?.value ?? Buffer.alloc(0));
  const endpoint = decodeEndpoint(peer.bytes(WGPEER_A.ENDPOINT));
  return {
    privateKey: Uint8Array.from(privateKey),
    publicKey: Uint8Array.from(publicKey),
    port: device.u16(WGDEVICE_A.LISTEN_PORT) ?? 0,
    remotePublicKey: copyOf(peer.bytes(WGPEER_A.PUBLIC_KEY)),
    remoteIp: endpoint?.ip,
    remotePort: endpoint?.port,
    lastHandshakeMs: decodeTime(peer.bytes(WGPEER_A.LAST_HANDSHAKE_TIME)),
    rxBytes: Number(peer.bytes(WGPEER_A.RX_BYTES)?.readBigUInt64LE() ?? 0n),
  };
}

function allowAll(family: number, length: number) {
  return nest(0, [
    u16(WGALLOWEDIP_A.FAMILY, family),
    bytes(WGALLOWEDIP_A.IPADDR, new Uint8Array(length)),
    u8(WGALLOWEDIP_A.CIDR_MASK, 0),
  ]);
}

/** struct sockaddr_in or sockaddr_in6 */
export function encodeEndpoint(ip: string, port: number): Buffer {
  const address = ipBytes(ip);
  const v4 = address.length === 4;
  const endpoint = Buffer.alloc(v4 ? 16 : 28);
  endpoint.writeUInt16LE(v4 ? AF_INET : AF_INET6, 0);
  endpoint.writeUInt16BE(port, 2);
  endpoint.set(address, v4 ? 4 : 8);
  return endpoint;
}

function decodeEndpoint(endpoint: Buffer | undefined): { ip: string; port: number } | undefined {
  if (endpoint === undefined || endpoint.length < 16) return undefined;
  const port = endpoint.readUInt16BE(2);
  if (endpoint.readUInt16LE(0) === AF_INET) return { ip: ipText(endpoint.subarray(4, 8)), port };
  return endpoint.length < 28 ? undefined : { ip: ipText(endpoint.subarray(8, 24)), port };
}

/** struct __kernel_timespec: seconds since 1970 and nanoseconds, eight bytes each; zero for never. */
function decodeTime(time: Buffer | undefined): number | undefined {
  if (time === undefined || time.length < 16) return undefined;
  const ms = Number(time.readBigInt64LE(0)) * 1000 + Number(time.readBigInt64LE(8)) / 1e6;
  return ms === 0 ? undefined : ms;
}

function copyOf(value: Buffer | undefined): Uint8Array | undefined {
  return value && Uint8Array.from(value);
}
