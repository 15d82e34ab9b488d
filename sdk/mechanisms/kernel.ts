/** Mechanism KERNEL: an interface in the network namespace of the process that asks or answers (docs/protocol.md, "Mechanisms"). */
import { create } from "@bufbuild/protobuf";
import { MechanismSchema } from "../../api/gen/connection_pb.js";
import type { Mechanism } from "../../api/gen/connection_pb.js";
import type { NetworkServiceRequest } from "../../api/gen/networkservice_pb.js";
import { isInterfaceName } from "../interface-name.ts";
import { flag, setParameter, text, texts, whole } from "./parameters.ts";

export const KERNEL_TYPE = "KERNEL";

/**
 * Parameter in which a manager tells its forwarder the process that asks, whose namespace it is. Never believed from anybody
 * else (docs/protocol.md, "Namespaces").
 */
export const PEER_PID = "peerPID";
/** Its value where the manager knows that no process of this node asks. */
export const NO_PEER_PID = "0";

/**
 * Asks the forwarder to put no addresses and routes on the interface: its owner passes packets on, and neither has the addresses
 * nor goes to them itself. Unknown to the Go forwarders, which put them there.
 */
export const NO_ADDRESSES = { addresses: "none" } as const;

export function wantsNoAddresses(parameters: { readonly [key: string]: string }): boolean {
  return parameters["addresses"] === NO_ADDRESSES.addresses;
}

export const KERNEL = {
  interfaceName: text("name"),
  /** `inode://<device>/<inode>` or `file:///path`. */
  netnsUrl: text("inodeURL"),
  /** 1 to 4094; 0 = untagged. */
  vlan: whole("vlan", 4094),
  supportsVlan: flag("supportsVlan"),
  routeLocalNet: flag("routeLocalNet"),
  /** This end wants a default route, if the other end asks for one. */
  acceptDefaultRoute: flag("acceptDefaultRoute"),
  /** Addresses that this end keeps on its own network, whatever routes the other end asks for. */
  protectedAddresses: texts("protectedAddresses"),
  /** A template of iptables rules: see nat-template.ts. */
  natTemplate: texts("IPTables4NatTemplate"),
  deviceTokenId: text("tokenID"),
  pciAddress: text("pciAddress"),
} as const;

/** Names are at most 15 bytes (linux/if.h IFNAMSIZ, without the final zero): ten of the service, a dash, random characters. */
const LONGEST_NAME = 15;
const SERVICE_BYTES = 10;
const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/**
 * A name for an interface of the service: its first characters, `-`, and random ones up to 15. Characters that an interface
 * name may not have are left out, so that the result always passes `checkInterfaceName`.
 *
 * `random`: numbers from 0 up to 1.
 */
export function generateInterfaceName(service: string, random: () => number = Math.random): string {
  const fixed = `${startOf(service)}-`;
  const next = () => ALPHABET.charAt(Math.floor(random() * ALPHABET.length));
  const name = fixed + Array.from({ length: LONGEST_NAME - fixed.length }, next).join("");
  return isInterfaceName(name) ? name : `nsm${name.slice(0, LONGEST_NAME - 3)}`;
}

/** The part of the first ten bytes that may stand in an interface name. */
function startOf(service: string): string {
  const start = Buffer.from(service).subarray(0, SERVICE_BYTES).toString("latin1");
  return start.replaceAll(/[^A-Za-z0-9_.-]/g, "").replace(/^[_.-]+/, "");
}

/** What one end says of its interface. */
export interface KernelEnd {
  /** The namespace that the interface is to be in. */
  readonly netnsUrl: string;
  /** Used where the connection has no name yet. */
  readonly interfaceName: string;
}

/** The asking side: every KERNEL preference gets our namespace and, where it has none, our name; one is added if there is none. */
export function offerKernel(request: NetworkServiceRequest, end: KernelEnd): void {
  const offers = request.mechanismPreferences.filter(({ type }) => type === KERNEL_TYPE);
  if (offers.length === 0) {
    const added = create(MechanismSchema, { cls: "LOCAL", type: KERNEL_TYPE });
    request.mechanismPreferences.push(added);
    offers.push(added);
  }
  for (const offer of offers) describeEnd(offer, end);
}

/** The answering side: the selected mechanism, if it is KERNEL, gets our namespace and, where it has none, our name. */
export function answerKernel(mechanism: Mechanism | undefined, end: KernelEnd): void {
  if (mechanism?.type === KERNEL_TYPE) describeEnd(mechanism, end);
}

function describeEnd({ parameters }: Mechanism, { netnsUrl, interfaceName }: KernelEnd): void {
  setParameter(parameters, KERNEL.netnsUrl, netnsUrl);
  parameters[KERNEL.interfaceName.key] ||= interfaceName;
}
