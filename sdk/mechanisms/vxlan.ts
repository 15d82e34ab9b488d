/** Mechanism VXLAN: a tunnel for payload ETHERNET, and who chooses which network identifier (docs/protocol.md, "Mechanisms"). */
import { NsmError } from "../errors.ts";
import { parseIp } from "../prefix.ts";
import { getParameter, ipAddress, whole } from "./parameters.ts";
import type { Parameters } from "./parameters.ts";
import { TUNNEL } from "./tunnel.ts";

export const VXLAN_TYPE = "VXLAN";
/** 24 bits (RFC 7348 §5). */
export const VNI_MAX = 0xff_ffff;

export const VXLAN = {
  ...TUNNEL,
  /** 1 to 2^24-1; 0 = not chosen. */
  vni: whole("vni", VNI_MAX),
  /** Addresses before a proxy at a domain border replaced them; their keys then exist, possibly empty. */
  originalSrcIp: ipAddress("orig_src_ip"),
  originalDstIp: ipAddress("orig_dst_ip"),
} as const;

/**
 * Parity of the identifiers that the serving side may choose: even when src ≤ dst, so that two nodes that serve each other
 * never choose the same. An absent src counts as the smaller, an absent dst as the smaller one, too (odd).
 */
export function isEvenVni(parameters: Readonly<Parameters>): boolean {
  const { originalSrcIp, originalDstIp, srcIp, dstIp } = VXLAN;
  const src = addressOf(
    parameters,
    Object.hasOwn(parameters, originalSrcIp.key) ? originalSrcIp.key : srcIp.key,
  );
  const dst = addressOf(
    parameters,
    Object.hasOwn(parameters, originalDstIp.key) ? originalDstIp.key : dstIp.key,
  );
  if (src === undefined) return true;
  return dst !== undefined && src <= dst;
}

/** As a number of 128 bits, IPv4 as IPv4-mapped IPv6. */
function addressOf(parameters: Readonly<Parameters>, key: string): bigint | undefined {
  const ip = parseIp(parameters[key] ?? "");
  if (ip === undefined) return undefined;
  return ip.family === 4 ? (0xffffn << 32n) | ip.address : ip.address;
}

/** Tries before an identifier counts as not to be had: enough unless nearly all of 2^23 are taken. */
const TRIES = 1000;

/**
 * The serving side's identifier: the request's own, or a random one of the right parity that is not `isTaken`.
 * Throws INVALID_ARGUMENT `no-source-address`; RESOURCE_EXHAUSTED `vni-exhausted`.
 */
export function chooseVni(
  parameters: Readonly<Parameters>,
  isTaken: (vni: number) => boolean,
  random: () => number,
): number {
  if (getParameter(parameters, VXLAN.srcIp) === undefined)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "no-source-address",
      `VXLAN parameter src_ip is ${JSON.stringify(parameters["src_ip"] ?? "")}: the asking forwarder must send its tunnel address`,
    );
  const given = getParameter(parameters, VXLAN.vni);
  if (given !== 0) return given;
  const even = isEvenVni(parameters);
  for (let i = 0; i < TRIES; i++) {
    const half = Math.floor(random() * ((VNI_MAX + 1) / 2));
    const vni = even ? 2 * half : 2 * half + 1;
    if (vni !== 0 && !isTaken(vni)) return vni;
  }
  throw new NsmError(
    "RESOURCE_EXHAUSTED",
    "vni-exhausted",
    `no free VXLAN network identifier found in ${TRIES} tries`,
  );
}
