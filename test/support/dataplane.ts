/** A data plane that only remembers what it was told. */
import type { Dataplane, FoundDevice, Wire } from "../../forwarder/dataplane.ts";

export interface FakeDataplane extends Dataplane {
  readonly applied: Wire[];
  readonly removed: string[];
  readonly released: string[];
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
    devices: [],
    failure: undefined,
    wireguard: { mode: "kernel" },
    vxlan: { available: true },
    found: (id) => plane.devices.filter(({ wireId }) => wireId === id),
    apply(wire) {
      plane.applied.push(wire);
      return plane.failure === undefined ? Promise.resolve() : Promise.reject(plane.failure);
    },
    remove(id) {
      plane.removed.push(id);
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
