/** Which kinds of wires this machine can have, after installing what is missing where that can be done. */
import { NsmError, messageOf } from "../../sdk/errors.ts";
import { probeKernel } from "../kernel.ts";
import type { Kernel } from "../kernel.ts";
import { baseTools, isRoot, nft, provide, userspaceWireGuard } from "../requirements.ts";
import type { Tool } from "../requirements.ts";
import type { MechanismName } from "./topology.ts";

export interface Unavailable {
  readonly mechanism: MechanismName;
  readonly reason: string;
  readonly remedy: string;
}

export interface Machine {
  /** Of those that were asked for. */
  readonly mechanisms: ReadonlySet<MechanismName>;
  /** The others. */
  readonly unavailable: readonly Unavailable[];
}

/** `tools`: needed whatever the kinds of wires. Throws FAILED_PRECONDITION in one clear line when no demo is possible at all. */
export function checkMachine(
  wanted: ReadonlySet<MechanismName>,
  tools: readonly Tool[],
  say: (line: string) => void,
): Machine {
  if (!isRoot())
    throw new NsmError(
      "FAILED_PRECONDITION",
      "not-root",
      "the demo makes network namespaces and needs root: run it with sudo",
    );
  provide([...baseTools, ...tools], say);
  const kernel = probeKernel();
  if (kernel.namespaces !== undefined)
    throw new NsmError(
      "FAILED_PRECONDITION",
      "no-namespaces",
      `cannot make network namespaces (${kernel.namespaces}): the kernel needs CONFIG_NET_NS, a container CAP_SYS_ADMIN (docker run --privileged)`,
    );
  if (kernel.veth !== undefined)
    throw new NsmError(
      "FAILED_PRECONDITION",
      "no-veth",
      `cannot make veth devices (${kernel.veth}): load the kernel module veth (CONFIG_VETH) or add CAP_NET_ADMIN`,
    );
  const unavailable = [
    ...(wanted.has("WIREGUARD") ? wireGuardFaults(kernel, say) : []),
    ...(wanted.has("VXLAN") ? vxlanFaults(kernel, say) : []),
  ];
  const isMissing = (mechanism: MechanismName) => unavailable.some((fault) => fault.mechanism === mechanism);
  return { mechanisms: new Set([...wanted].filter((each) => !isMissing(each))), unavailable };
}

function wireGuardFaults(kernel: Kernel, say: (line: string) => void): readonly Unavailable[] {
  if (kernel.wireguard === undefined) return [];
  const mechanism = "WIREGUARD";
  const without = `this kernel has no WireGuard (${kernel.wireguard})`;
  if (kernel.tun !== undefined)
    return [
      {
        mechanism,
        reason: `${without} and user-space WireGuard cannot run: ${kernel.tun}`,
        remedy:
          "load the kernel module wireguard, or tun (modprobe tun); in a container add the device /dev/net/tun",
      },
    ];
  return toolFaults(mechanism, userspaceWireGuard, say);
}

function vxlanFaults(kernel: Kernel, say: (line: string) => void): readonly Unavailable[] {
  const mechanism = "VXLAN";
  if (kernel.vxlan !== undefined)
    return [
      {
        mechanism,
        reason: `this kernel has no VXLAN (${kernel.vxlan})`,
        remedy: "load the kernel module vxlan (CONFIG_VXLAN)",
      },
    ];
  const faults = toolFaults(mechanism, [nft], say);
  if (faults.length > 0) return faults;
  const nftables = kernel.nftables === undefined ? undefined : probeKernel().nftables; // nft may have come just now
  if (nftables === undefined) return [];
  return [
    {
      mechanism,
      reason: `VXLAN wires need nftables as a source filter and it does not work (${nftables})`,
      remedy:
        "load the kernel module nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET, CONFIG_NF_TABLES_NETDEV)",
    },
  ];
}

function toolFaults(
  mechanism: MechanismName,
  tools: readonly Tool[],
  say: (line: string) => void,
): readonly Unavailable[] {
  try {
    provide(tools, say);
    return [];
  } catch (error) {
    const packages = tools.map((tool) => tool.package).join(" ");
    return [{ mechanism, reason: messageOf(error), remedy: `install the packages ${packages}` }];
  }
}
