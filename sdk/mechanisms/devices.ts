/** Mechanisms of other forwarders, read so that they can be shown and passed on: IPSEC, MEMIF, VFIO, VLAN (docs/protocol.md). */
import { UINT32_MAX, text, whole } from "./parameters.ts";
import { KEYED_TUNNEL } from "./tunnel.ts";

export const IPSEC = KEYED_TUNNEL;

export const MEMIF = {
  netnsUrl: text("inodeURL"),
  /** Abstract when it begins with `@`. */
  socketFile: text("socketfile"),
} as const;

export const VFIO = {
  cgroupDir: text("cgroupDir"),
  iommuGroup: whole("iommuGroup", UINT32_MAX),
  vfioMajor: whole("vfioMajor", UINT32_MAX),
  vfioMinor: whole("vfioMinor", UINT32_MAX),
  deviceMajor: whole("deviceMajor", UINT32_MAX),
  deviceMinor: whole("deviceMinor", UINT32_MAX),
  deviceTokenId: text("tokenID"),
  pciAddress: text("pciAddress"),
} as const;

export const VLAN = { vlanId: whole("vlan-id", 4095) } as const;
