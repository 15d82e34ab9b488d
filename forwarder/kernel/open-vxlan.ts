/** Whether this node can make VXLAN wires, and why not. */
import { messageOf } from "../../sdk/errors.ts";
import type { FoundDevice } from "../wire.ts";
import { kernelKnows } from "./underlay.ts";
import { openVxlanFilter } from "./vxlan-filter.ts";
import type { VxlanFilter } from "./vxlan-filter.ts";

export type VxlanMode =
  | { readonly available: true }
  | { readonly available: false; readonly reason: string; readonly remedy: string };

/** VXLAN needs the kernel's device and, unless the operator does without, the filter. */
export async function openVxlan(
  found: readonly FoundDevice[],
  unfiltered: boolean,
): Promise<{ mode: VxlanMode; filter: VxlanFilter | undefined }> {
  const unavailable = (reason: string, remedy: string) => ({
    mode: { available: false, reason, remedy } as const,
    filter: undefined,
  });
  if (!(await kernelKnows("vxlan")))
    return unavailable("the kernel has no VXLAN device", "load the module: modprobe vxlan");
  const entries = found.flatMap(({ wireId, port, vni, remoteIp }) =>
    port !== undefined && vni !== undefined && remoteIp !== undefined
      ? [[wireId, { port, vni, remoteIp }] as const]
      : [],
  );
  try {
    return { mode: { available: true }, filter: await openVxlanFilter(new Map(entries)) };
  } catch (error) {
    if (unfiltered) return { mode: { available: true }, filter: undefined };
    return unavailable(
      `no source filter: ${messageOf(error)}`,
      "load the module (modprobe nf_tables), or set NSM_VXLAN_UNFILTERED=true to accept VXLAN packets of any source",
    );
  }
}
