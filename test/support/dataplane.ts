/** A data plane that only remembers what it was told. */
import type { Dataplane, FoundDevice, Wire } from "../../forwarder/dataplane.ts";

export interface FakeDataplane extends Dataplane {
  readonly applied: Wire[];
  readonly removed: string[];
  readonly released: string[];
  /** Ids of the wires that there are. */
  readonly present: Set<string>;
  /** What `apply` waits for, as if the kernel took its time. */
  busy: () => Promise<void>;
  /** What the scan of the start found. */
  devices: FoundDevice[];
  /** Makes the next `apply` fail. */
  failure: Error | undefined;
}

export function createFakeDataplane(overrides: Partial<Dataplane> = {}): FakeDataplane {
  const key = (fill: number) => new Uint8Array(32).fill(fill);
  const plane: FakeDataplane = {
    applied: [],
    removed: [],
    released: [],
    present: new Set(),
    busy: () => Promise.resolve(),
    devices: [],
    failure: undefined,
    wireguard: { mode: "kernel" },
    vxlan: { available: true },
    found: (id) => plane.devices.filter(({ wireId }) => wireId === id),
    foundAs: (inode, name) =>
      plane.devices.filter(({ netns, interfaceName }) => netns.inode === inode && interfaceName === name),
    async apply(wire, signal) {
      plane.applied.push(wire);
      await plane.busy();
      signal?.throwIfAborted();
      if (plane.failure !== undefined) throw plane.failure;
      plane.present.add(wire.id);
    },
    remove(id) {
      plane.removed.push(id);
      plane.present.delete(id);
      return Promise.resolve();
    },
    reserveWireguard: () => ({ port: 51820, privateKey: key(1), publicKey: key(2) }),
    reserveVni: (_, parity) => (parity === "even" ? 100 : 101),
    keepVni: () => undefined,
    release: (id) => void plane.released.push(id),
    sweep: () => Promise.resolve([]),
    stats: () => Promise.resolve(new Map()),
    lastStats: () => [],
    onNamespaceEnded: () => undefined,
    underlayMtu: () => Promise.resolve(1500),
    [Symbol.asyncDispose]: () => Promise.resolve(),
    ...overrides,
  };
  return plane;
}
