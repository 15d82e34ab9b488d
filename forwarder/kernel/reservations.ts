/** What a wire needs of the node before it is made: a port and keys for WireGuard, a VNI for VXLAN. */
import { randomInt } from "node:crypto";
import { NsmError } from "../../sdk/errors.ts";
import { newKeys, publicKeyOf } from "./keys.ts";
import { busyUdpPorts } from "./udp-ports.ts";
import type { FoundDevice } from "../wire.ts";

export interface WireguardReservation {
  readonly port: number;
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
}

export interface Reservations {
  reserveWireguard(wireId: string): WireguardReservation;
  reserveVni(wireId: string, parity: "even" | "odd", port: number): number;
  keepVni(wireId: string, vni: number): void;
  release(wireId: string): void;
}

export interface ReservationOptions {
  readonly ports: { readonly first: number; readonly last: number };
  /** Devices of an earlier life: their ports, keys and VNIs stay with their wires. */
  readonly found: readonly FoundDevice[];
  /** VNIs of other people's devices. */
  readonly foreignVnis: ReadonlySet<number>;
  /** UDP ports that something on the node uses. */
  readonly busyPorts?: () => ReadonlySet<number>;
}

const LARGEST_VNI = 2 ** 24 - 1;

export function createReservations(options: ReservationOptions): Reservations {
  const { first, last } = options.ports;
  const { foreignVnis, busyPorts = busyUdpPorts } = options;
  const tunnels = new Map<string, WireguardReservation>();
  const vnis = new Map<string, number>();
  let nextPort = first;

  for (const { wireId, vni } of options.found) if (vni !== undefined) vnis.set(wireId, vni);
  for (const { wireId, port, privateKey } of unique(options.found))
    if (port !== undefined && privateKey !== undefined)
      tunnels.set(wireId, { port, privateKey, publicKey: publicKeyOf(privateKey) });

  /** In turn, so that a port rests before it is used again. */
  function freePort(): number {
    const taken = new Set([...tunnels.values()].map(({ port }) => port));
    const busy = busyPorts();
    for (let tries = first; tries <= last; tries++) {
      const port = nextPort;
      nextPort = port === last ? first : port + 1;
      if (!taken.has(port) && !busy.has(port)) return port;
    }
    throw new NsmError(
      "RESOURCE_EXHAUSTED",
      "no-free-port",
      `all UDP ports ${first} to ${last} are in use: give WireGuard a larger range or close wires`,
    );
  }

  const ownerOf = (vni: number) => [...vnis].find(([, taken]) => taken === vni)?.[0];

  return {
    reserveWireguard(wireId) {
      const known = tunnels.get(wireId);
      if (known) return known;
      const reservation = { port: freePort(), ...newKeys() };
      tunnels.set(wireId, reservation);
      return reservation;
    },
    reserveVni(wireId, parity) {
      const known = vnis.get(wireId);
      if (known !== undefined) return known;
      const taken = new Set(vnis.values());
      for (;;) {
        const vni = 2 * randomInt(1, 2 ** 23) + (parity === "even" ? 0 : 1);
        if (vni > LARGEST_VNI || taken.has(vni) || foreignVnis.has(vni)) continue;
        vnis.set(wireId, vni);
        return vni;
      }
    },
    keepVni(wireId, vni) {
      const owner = ownerOf(vni);
      if (owner === wireId) return;
      if (owner !== undefined || foreignVnis.has(vni))
        throw new NsmError(
          "ALREADY_EXISTS",
          "vni-taken",
          `VNI ${vni} is in use on this node: request again to get another one`,
        );
      vnis.set(wireId, vni);
    },
    release(wireId) {
      tunnels.delete(wireId);
      vnis.delete(wireId);
    },
  };
}

/** Two devices that claim one wire: one of them may be forged by a pod that may change its links; neither's keys are trusted. */
function unique(found: readonly FoundDevice[]): FoundDevice[] {
  return found.filter((device) => found.filter(({ wireId }) => wireId === device.wireId).length === 1);
}
