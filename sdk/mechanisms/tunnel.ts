/** What the tunnel mechanisms have in common: two ends, MTU, keys (docs/protocol.md, "Mechanisms"). */
import type { Mechanism } from "../../api/gen/connection_pb.js";
import { UINT16_MAX, UINT32_MAX, ipAddress, text, whole } from "./parameters.ts";

/** Those of other forwarders too. */
const ENCRYPTED: ReadonlySet<string> = new Set(["WIREGUARD", "IPSEC"]);

/** True for a tunnel that nobody on its way reads. */
export function isEncrypted({ cls, type }: Pick<Mechanism, "cls" | "type">): boolean {
  return cls === "REMOTE" && ENCRYPTED.has(type);
}

/** `src`: the asking forwarder's end, `dst`: the serving one's. */
export const TUNNEL = {
  srcIp: ipAddress("src_ip"),
  dstIp: ipAddress("dst_ip"),
  srcPort: whole("src_port", UINT16_MAX),
  dstPort: whole("dst_port", UINT16_MAX),
  /** Said by a forwarder to the proxy of its own domain: as what others reach it. Ours alone. */
  srcExternalIp: ipAddress("src_external_ip"),
  dstExternalIp: ipAddress("dst_external_ip"),
  /** Bytes that fit through; 0 = not said. */
  mtuBytes: whole("MTU", UINT32_MAX),
} as const;

export const KEYED_TUNNEL = {
  ...TUNNEL,
  /** WIREGUARD: standard base64 of 32 bytes. IPSEC: standard base64 of a certificate. */
  srcPublicKey: text("src_public_key"),
  dstPublicKey: text("dst_public_key"),
} as const;
