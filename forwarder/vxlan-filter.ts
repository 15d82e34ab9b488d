/** Which node may speak into which of our VXLAN wires. */
import type { VxlanShape } from "./netlink/link.ts";

export interface VxlanFilter extends AsyncDisposable {
  /** From now on packets of this port and VNI are taken from this peer only. */
  allow(wireId: string, shape: VxlanShape): Promise<void>;
  /** Packets of the wire's port and VNI are no business of ours any more. */
  forget(wireId: string): Promise<void>;
}
