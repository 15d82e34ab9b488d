/** Both ends of WIREGUARD and VXLAN as mechanism parameters (docs/protocol.md, "Mechanisms"). */
import { create } from "@bufbuild/protobuf";
import { MechanismSchema } from "../../api/gen/connection_pb.js";
import type { Connection, Mechanism } from "../../api/gen/connection_pb.js";
import { ConnectionContextSchema } from "../../api/gen/connectioncontext_pb.js";
import { NsmError } from "../../sdk/errors.ts";
import { setParameter } from "../../sdk/mechanisms/parameters.ts";
import { TUNNEL } from "../../sdk/mechanisms/tunnel.ts";
import { isEvenVni } from "../../sdk/mechanisms/vxlan.ts";
import { parseIp } from "../../sdk/prefix.ts";
import type { Dataplane, VxlanSide, WireguardSide } from "../dataplane.ts";

export type TunnelEnd = VxlanSide | WireguardSide;

/** Bytes that a tunnel adds, by outer family; VXLAN counts an inner VLAN tag, as the Go forwarders do. */
const OVERHEAD = { WIREGUARD: { v4: 60, v6: 80 }, VXLAN: { v4: 54, v6: 74 } } as const;
type TunnelType = keyof typeof OVERHEAD;

export interface Tunnels {
  /** True when this node can make that tunnel. */
  can(type: string): boolean;
  /** Why not, with the remedy; empty for what is possible or unknown. */
  whyNot(type: string): string;
  /** Mechanism types of this node, KERNEL included. */
  list(): string[];
  /**
   * The serving end: adds our parameters to the caller's mechanism and lowers the MTU of both it and the connection.
   * The peer's public key is known from the start, so the tunnel's own end is complete.
   */
  serve(mechanism: Mechanism, connection: Connection): Promise<TunnelEnd>;
  /** The requesting end: what we offer to the next hop for a payload. Throws FAILED_PRECONDITION `no-tunnel`. */
  offer(wireId: string, payload: string, peerUrl: string): Promise<Mechanism>;
  /** The requesting end, complete with the answer. */
  accept(wireId: string, mechanism: Mechanism): TunnelEnd;
}

export interface TunnelOptions {
  readonly dataplane: Dataplane;
  /** Own address on the underlay. */
  readonly tunnelIp: string;
  /** As what other domains reach this node, where that is another address. */
  readonly externalIp?: string | undefined;
  readonly vxlanPort: number;
}

export function createTunnels(options: TunnelOptions): Tunnels {
  const { dataplane, tunnelIp, externalIp, vxlanPort } = options;
  const whyNot = (type: string): string => {
    if (type === "WIREGUARD" && dataplane.wireguard.mode === "none")
      return `WIREGUARD: ${dataplane.wireguard.reason}; ${dataplane.wireguard.remedy}`;
    if (type === "VXLAN" && !dataplane.vxlan.available)
      return `VXLAN: ${dataplane.vxlan.reason}; ${dataplane.vxlan.remedy}`;
    return "";
  };
  const can = (type: string): type is TunnelType => type in OVERHEAD && whyNot(type) === "";
  const ownMtu = async (type: TunnelType, remoteIp: string) =>
    (await dataplane.underlayMtu(remoteIp)) - OVERHEAD[type][remoteIp.includes(":") ? "v6" : "v4"];

  return {
    can,
    whyNot,
    list: () => ["KERNEL", ...(["WIREGUARD", "VXLAN"] as const).filter(can)],
    async serve(mechanism, connection) {
      const type = tunnelType(mechanism);
      const { parameters } = mechanism;
      const remoteIp = ipParameter(parameters, "src_ip");
      parameters["dst_ip"] = tunnelIp;
      setParameter(parameters, TUNNEL.dstExternalIp, externalIp);
      lowerMtu(mechanism, connection, await ownMtu(type, remoteIp));
      if (type === "VXLAN") return serveVxlan(options, connection.id, parameters, remoteIp);
      const own = dataplane.reserveWireguard(connection.id);
      parameters["dst_port"] = String(own.port);
      parameters["dst_public_key"] = Buffer.from(own.publicKey).toString("base64");
      return wireguardEnd(tunnelIp, own, parameters, "src");
    },
    async offer(wireId, payload, peerUrl) {
      const type: TunnelType = payload === "ETHERNET" ? "VXLAN" : "WIREGUARD";
      if (!can(type))
        throw new NsmError(
          "FAILED_PRECONDITION",
          "no-tunnel",
          `payload ${payload} to another node needs ${whyNot(type)}`,
        );
      const remoteIp = hostOf(peerUrl) ?? tunnelIp;
      const parameters: Record<string, string> = {
        src_ip: tunnelIp,
        MTU: String(await ownMtu(type, remoteIp)),
      };
      if (externalIp !== undefined) setParameter(parameters, TUNNEL.srcExternalIp, externalIp);
      if (type === "VXLAN") parameters["src_port"] = String(vxlanPort);
      else {
        const own = dataplane.reserveWireguard(wireId);
        parameters["src_port"] = String(own.port);
        parameters["src_public_key"] = Buffer.from(own.publicKey).toString("base64");
      }
      return create(MechanismSchema, { cls: "REMOTE", type, parameters });
    },
    accept(wireId, mechanism) {
      const { parameters } = mechanism;
      const remoteIp = ipParameter(parameters, "dst_ip");
      if (tunnelType(mechanism) === "WIREGUARD")
        return wireguardEnd(tunnelIp, dataplane.reserveWireguard(wireId), parameters, "dst");
      const vni = vniParameter(parameters);
      dataplane.keepVni(wireId, vni);
      return { kind: "vxlan", localIp: tunnelIp, remoteIp, port: vxlanPort, vni };
    },
  };
}

function serveVxlan(
  { dataplane, tunnelIp, vxlanPort }: TunnelOptions,
  wireId: string,
  parameters: Record<string, string>,
  remoteIp: string,
): VxlanSide {
  parameters["dst_port"] = String(vxlanPort);
  if ((parameters["vni"] ?? "") === "" || parameters["vni"] === "0")
    parameters["vni"] = String(
      dataplane.reserveVni(wireId, isEvenVni(parameters) ? "even" : "odd", vxlanPort),
    );
  const vni = vniParameter(parameters);
  dataplane.keepVni(wireId, vni);
  return { kind: "vxlan", localIp: tunnelIp, remoteIp, port: vxlanPort, vni };
}

function wireguardEnd(
  localIp: string,
  own: { port: number; privateKey: Uint8Array },
  parameters: Record<string, string>,
  peer: "src" | "dst",
): WireguardSide {
  return {
    kind: "wireguard",
    localIp,
    remoteIp: ipParameter(parameters, `${peer}_ip`),
    localPort: own.port,
    remotePort: portParameter(parameters, `${peer}_port`),
    privateKey: own.privateKey,
    remotePublicKey: keyParameter(parameters, `${peer}_public_key`),
  };
}

/** The smaller MTU of both ends holds, in the mechanism and in what the endpoint and the client are told. */
function lowerMtu(mechanism: Mechanism, connection: Connection, own: number): void {
  const theirs = Number(mechanism.parameters["MTU"] ?? "0") || own;
  const mtu = Math.min(own, theirs);
  mechanism.parameters["MTU"] = String(mtu);
  connection.context ??= create(ConnectionContextSchema);
  if (connection.context.MTU === 0 || connection.context.MTU > mtu) connection.context.MTU = mtu;
}

function tunnelType(mechanism: Mechanism): TunnelType {
  if (mechanism.type === "WIREGUARD" || mechanism.type === "VXLAN") return mechanism.type;
  throw new NsmError(
    "FAILED_PRECONDITION",
    "no-common-mechanism",
    `mechanism ${mechanism.type} is not a tunnel of this forwarder`,
  );
}

function hostOf(url: string): string | undefined {
  const host = /^(?:tcp:\/\/)?(?:\[([^\]]+)\]|([^:/]+)):\d+$/.exec(url);
  const text = host?.[1] ?? host?.[2];
  return text !== undefined && parseIp(text) !== undefined ? text : undefined;
}

function ipParameter(parameters: Record<string, string>, key: string): string {
  const value = parameters[key] ?? "";
  if (parseIp(value) === undefined) throw bad(key, value, "an IP address");
  return value;
}

function portParameter(parameters: Record<string, string>, key: string): number {
  const value = parameters[key] ?? "";
  const port = Number(value);
  if (!/^\d{1,5}$/.test(value) || port === 0 || port > 65535) throw bad(key, value, "a port");
  return port;
}

function vniParameter(parameters: Record<string, string>): number {
  const value = parameters["vni"] ?? "";
  const vni = Number(value);
  if (!/^\d{1,8}$/.test(value) || vni === 0 || vni >= 2 ** 24)
    throw bad("vni", value, "a number from 1 to 16777215");
  return vni;
}

function keyParameter(parameters: Record<string, string>, key: string): Uint8Array {
  const value = parameters[key] ?? "";
  const bytes = Buffer.from(value, "base64");
  if (bytes.length !== 32 || bytes.toString("base64") !== value)
    throw bad(key, value, "a 32-byte key in base64");
  return bytes;
}

function bad(key: string, value: string, expected: string): NsmError {
  return new NsmError(
    "INVALID_ARGUMENT",
    "bad-mechanism-parameter",
    `mechanism parameter ${key}=${JSON.stringify(value)}: expected ${expected}`,
  );
}
