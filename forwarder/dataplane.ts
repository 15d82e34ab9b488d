/** The data plane of a node: wires in, kernel state out. The facade of this folder's plan, observe, diff and apply. */
import { createHash, randomInt } from "node:crypto";
import { stat } from "node:fs/promises";
import { systemClock } from "../sdk/clock.ts";
import { NsmError } from "../sdk/errors.ts";
import type { Logger } from "../sdk/log.ts";
import { applyWire, openPods } from "./kernel/apply.ts";
import type { ApplyOptions } from "./kernel/create.ts";
import { at, exists, removeDevices } from "./kernel/device.ts";
import type { Device } from "./kernel/device.ts";
import { formatAlias } from "./plan/alias.ts";
import { checkWanted } from "./plan/guard.ts";
import { createInterfaceNames } from "./kernel/interface-names.ts";
import { openNetlink } from "../sdk/netlink/socket.ts";
import { oneAtATimeByKey } from "../sdk/one-at-a-time.ts";
import { openNamespaceEnds, watchEnds } from "./kernel/namespace-ends.ts";
import type { NamespaceEnds } from "./kernel/namespace-ends.ts";
import { identityBySocket, openNetns } from "./kernel/netns.ts";
import { readLink } from "./kernel/observe.ts";
import { planWire } from "./plan/plan.ts";
import type { Wanted } from "./plan/plan.ts";
import { createReservations } from "./kernel/reservations.ts";
import type { WireguardReservation } from "./kernel/reservations.ts";
import { ownGroup, scan } from "./kernel/scan.ts";
import { endsOf, readStats } from "./kernel/stats.ts";
import type { EndStats } from "./kernel/stats.ts";
import { forgetOtherTunnel, forgetTunnel } from "./kernel/tunnel-device.ts";
import type { TunnelDrivers } from "./kernel/tunnel-device.ts";
import { openVxlan } from "./kernel/open-vxlan.ts";
import type { VxlanMode } from "./kernel/open-vxlan.ts";
import { renamesLive, underlayMtu } from "./kernel/underlay.ts";
import type { PeerPlace } from "./kernel/wireguard/driver.ts";
import { openWireguard } from "./kernel/wireguard/open.ts";
import type { SessionTimes } from "./plan/session.ts";
import { watchTunnels } from "./watch/tunnels.ts";
import type { TunnelWatch } from "./watch/tunnels.ts";
import { WIRE_IFINDEX } from "./wire.ts";
import type { FoundDevice, Side, Wire } from "./wire.ts";

export type {
  FoundDevice,
  KernelSide,
  NetnsRef,
  Side,
  VxlanSide,
  Wire,
  WireIp,
  WireRoute,
  WireguardSide,
} from "./wire.ts";
export type { VxlanMode } from "./kernel/open-vxlan.ts";
export type { EndStats } from "./kernel/stats.ts";

export interface DataplaneOptions {
  readonly log: Logger;
  /** Range of UDP ports for WireGuard, both ends included. Default 51820 to 52843. */
  readonly wireguardPorts?: { readonly first: number; readonly last: number };
  /** Offer VXLAN without the source filter where there is no nftables. Default false. */
  readonly vxlanUnfiltered?: boolean;
  /** The kernel gives a device that is up another name. Default: as it is, since Linux 6.2. */
  readonly liveRename?: boolean;
  /** Life of a WireGuard session. Default WireGuard's. */
  readonly sessionTimes?: SessionTimes;
}

export type WireguardMode =
  | { readonly mode: "kernel" | "userspace" }
  | { readonly mode: "none"; readonly reason: string; readonly remedy: string };

export interface Dataplane extends AsyncDisposable {
  readonly wireguard: WireguardMode;
  readonly vxlan: VxlanMode;
  /** Devices of this wire that an earlier life left and that no `apply` has claimed yet. */
  found(wireId: string): readonly FoundDevice[];
  /** The same by what it is called in a client's namespace, which has that inode. */
  foundAs(netnsInode: bigint, interfaceName: string): readonly FoundDevice[];
  /**
   * Makes the kernel as the wire says; repeating it changes nothing and costs one netlink message. Devices that fit are kept.
   * Throws NsmError: INVALID_ARGUMENT for a bad value, NOT_FOUND `netns-gone`, PERMISSION_DENIED `netns-mismatch`,
   * `netns-of-node`, `foreign-device`, `route-not-allowed` and the like for what no answer may ask of a pod, ALREADY_EXISTS `interface-name-taken` or `vni-taken`, UNAVAILABLE `port-busy`.
   */
  apply(wire: Wire, signal: AbortSignal): Promise<void>;
  /** Resolves once the kernel has removed the wire's devices; fine when there are none. Ends its reservations. */
  remove(wireId: string): Promise<void>;
  /** Stable until `remove` or `release`; what an earlier life left is used again. RESOURCE_EXHAUSTED `no-free-port`. */
  reserveWireguard(wireId: string): WireguardReservation;
  /** Random, and no other wire's of this node. Stable until `remove` or `release`. */
  reserveVni(wireId: string, parity: "even" | "odd", port: number): number;
  /** A VNI that the peer chose. ALREADY_EXISTS `vni-taken` when something else on this node has it. */
  keepVni(wireId: string, vni: number): void;
  /** Drops the reservations of a wire that was never applied. */
  release(wireId: string): void;
  /** Removes what was found and is no wire's of `claimed`; returns the ids of the wires removed. */
  sweep(claimed: ReadonlySet<string>): Promise<string[]>;
  /**
   * What wires have carried, an entry for each end on this node: of those wires, else of all, by wire id. A wire without
   * devices is left out. Counters begin anew when a device is replaced.
   */
  stats(wireIds?: Iterable<string>): Promise<ReadonlyMap<string, readonly EndStats[]>>;
  /** The same of one wire, as of its last refresh: costs nothing. */
  lastStats(wireId: string): readonly EndStats[];
  /** Whom to tell when a namespace with an end of an applied wire has ended. */
  onNamespaceEnded(listener: (wireId: string, side: Side) => void): void;
  /** Largest IP packet towards a node. UNAVAILABLE `no-route` when there is no way. */
  underlayMtu(remoteIp: string): Promise<number>;
}

interface Applied {
  readonly fingerprint: string;
  readonly devices: readonly Device[];
  readonly link: Wanted["link"];
  /** As of the last `apply` that changed nothing. */
  stats: readonly EndStats[];
  /** Of the namespaces of its ends. */
  readonly watch: Disposable;
}

/** Opens the data plane of the network namespace that this process lives in, and looks for what an earlier life left. */
export async function openDataplane(options: DataplaneOptions): Promise<Dataplane> {
  // libuv starts its threads at the first asynchronous file operation; one started later could inherit a pod's namespace.
  await stat("/proc/self");
  const { log } = options;
  const group = ownGroup();
  const wireguard = await openWireguard();
  const driver = wireguard.mode === "none" ? undefined : wireguard.driver;
  const { devices: recovered, halfMade, foreignVnis } = await scan(group, driver);
  await removeDevices(
    halfMade.map(({ netns, interfaceName: name, ifindex }) => ({
      wireId: name,
      netns,
      name,
      ifindex,
      alias: "",
    })),
  );
  const vxlan = await openVxlan(recovered, options.vxlanUnfiltered ?? false);
  const drivers: TunnelDrivers = { filter: vxlan.filter, wireguard: driver };
  if (recovered.length > 0) log.info({ devices: recovered.length }, "found devices of an earlier life");
  const ports = options.wireguardPorts ?? { first: 51820, last: 52843 };
  const reservations = createReservations({ ports, found: recovered, foreignVnis });
  const turn = oneAtATimeByKey();
  const applied = new Map<string, Applied>();
  const tunnels = watchTunnels({
    driver,
    deviceOf: (wireId) => devicesOf({ applied, recovered }, wireId)[0],
    toldOf: (wireId) => toldPeer(applied.get(wireId)),
    turn,
    clock: systemClock,
    log,
    ...(options.sessionTimes && { times: options.sessionTimes }),
  });
  for (const { wireId, side, kind } of recovered)
    if (kind === driver?.linkKind) tunnels.follow(wireId, side, "found");
  const state: State = {
    log,
    options: {
      group,
      drivers,
      newIfindex: () => randomInt(WIRE_IFINDEX.first, WIRE_IFINDEX.last),
      liveRename: options.liveRename ?? renamesLive(),
    },
    names: createInterfaceNames(),
    applied,
    recovered,
    namespaceEnds: openNamespaceEnds(log),
    onNamespaceEnded: () => undefined,
    tunnels,
  };
  const remove = (wireId: string) =>
    turn(wireId, async () => {
      await removeNow(state, wireId);
      reservations.release(wireId);
    });

  return {
    wireguard: wireguard.mode === "none" ? wireguard : { mode: wireguard.mode },
    vxlan: vxlan.mode,
    ...reservations,
    found: (wireId) => foundOf(state, wireId),
    foundAs: (inode, name) =>
      recovered.filter(
        ({ side, netns, interfaceName }) =>
          side === "client" && netns.inode === inode && interfaceName === name,
      ),
    apply: (wire, signal) => turn(wire.id, () => applyNow(state, wire, signal)),
    remove,
    async sweep(claimed) {
      const orphans = new Set(recovered.map(({ wireId }) => wireId));
      for (const id of [...claimed, ...state.applied.keys()]) orphans.delete(id);
      for (const wireId of orphans) await remove(wireId);
      return [...orphans];
    },
    async stats(wireIds = [...state.applied.keys(), ...recovered.map(({ wireId }) => wireId)]) {
      return await readStats([...new Set(wireIds)].flatMap((wireId) => devicesOf(state, wireId)));
    },
    lastStats: (wireId) => state.applied.get(wireId)?.stats ?? [],
    onNamespaceEnded(listener) {
      state.onNamespaceEnded = listener;
    },
    underlayMtu,
    async [Symbol.asyncDispose]() {
      state.namespaceEnds[Symbol.dispose]();
      tunnels[Symbol.dispose]();
      vxlan.filter?.[Symbol.dispose]();
    },
  };
}

interface State {
  readonly log: Logger;
  readonly options: ApplyOptions;
  readonly names: ReturnType<typeof createInterfaceNames>;
  readonly applied: Map<string, Applied>;
  /** Unclaimed devices of an earlier life. */
  readonly recovered: FoundDevice[];
  readonly namespaceEnds: NamespaceEnds;
  onNamespaceEnded: (wireId: string, side: Side) => void;
  readonly tunnels: TunnelWatch;
}

async function applyNow(state: State, wire: Wire, signal: AbortSignal): Promise<void> {
  const before = state.applied.get(wire.id);
  const wanted: Wanted = { ...planWire(wire), peerBefore: toldPeer(before) };
  checkWanted(wanted);
  const fingerprint = fingerprintOf(wanted);
  const looksAgain = wire.isDoubted === true;
  if (before?.fingerprint === fingerprint && !looksAgain && (await isThere(wanted, before))) return;
  const known = before?.devices ?? (await claim(state, wanted));
  using stack = new DisposableStack();
  const pods = openPods(wanted, stack);
  // By more than their inodes, which namespaces inherit from those that ended, whose wires may still be known.
  const places = pods.map(({ netns, socket }) => identityBySocket(netns, socket));
  const names = state.names.take(wanted, places);
  try {
    const made = await applyWire(state.options, wanted, pods, known, signal);
    const devices = made.map((device, i) => remembered(device, places[i]));
    const { link } = wanted;
    if (before !== undefined && before.link.kind !== link.kind)
      await forgetOtherTunnel(state.options.drivers, wanted);
    before?.watch[Symbol.dispose]();
    const watched = pods.map((pod, i) => ({
      side: pod.wanted.side,
      netns: pod.netns,
      identity: at(places, i),
    }));
    const watch = await watchEnds(state.namespaceEnds, watched, state.log, (side) =>
      state.onNamespaceEnded(wire.id, side),
    );
    state.applied.set(wire.id, { fingerprint, devices, link, stats: [], watch });
    names.keep();
    dropFound(state, wire.id);
    const kept = devices.every(({ ifindex }) => known.some((device) => device.ifindex === ifindex));
    followTunnel(state.tunnels, wanted, kept);
    const what = kept ? (before ? "wire changed" : "wire adopted") : "wire made";
    state.log.info({ connection: wire.id, interface: wanted.ends.map(({ name }) => name) }, what);
  } catch (error) {
    names.undo();
    throw error;
  }
}

function followTunnel(tunnels: TunnelWatch, { wireId, link, ends }: Wanted, isKept: boolean): void {
  const [end] = ends;
  if (link.kind !== "wireguard" || end === undefined) tunnels.drop(wireId);
  else tunnels.follow(wireId, end.side, isKept ? "kept" : "made");
}

/** Where the peer of its tunnel is, by the last Request. */
function toldPeer(applied: Applied | undefined): PeerPlace | undefined {
  return applied?.link.kind === "wireguard" ? applied.link : undefined;
}

/** In the order of the ends. */
function remembered(device: Device, identity: string | undefined): Device {
  return identity === undefined ? device : { ...device, netns: { ...device.netns, identity } };
}

async function removeNow(state: State, wireId: string): Promise<void> {
  state.tunnels.drop(wireId);
  const known = state.applied.get(wireId)?.devices ?? [];
  await removeDevices([...known, ...foundOf(state, wireId).map(deviceOf)]);
  await forgetTunnel(state.options.drivers, wireId);
  state.applied.get(wireId)?.watch[Symbol.dispose]();
  state.applied.delete(wireId);
  dropFound(state, wireId);
  state.names.release(wireId);
  if (known.length > 0) state.log.info({ connection: wireId }, "wire removed");
}

/** One question to the kernel: the other end and all that is on the devices live and die with this one. */
async function isThere({ ends }: Wanted, applied: Applied): Promise<boolean> {
  const [end] = ends;
  const [device] = applied.devices;
  if (end === undefined || device === undefined) return false;
  using netns = openNetns(end.netns);
  using socket = openNetlink("route", netns.fd);
  const link = await readLink(socket, { ifindex: device.ifindex }, true);
  if (link?.alias !== device.alias || link.name !== device.name) return false;
  applied.stats = endsOf(applied.devices, link.counters);
  return true;
}

/** What an earlier life left of this wire: kept or replaced. PERMISSION_DENIED when somebody else claims it, or from elsewhere. */
async function claim(state: State, { wireId, ends }: Wanted): Promise<Device[]> {
  const known: Device[] = [];
  for (const found of foundOf(state, wireId)) {
    const device = deviceOf(found);
    if (!(await exists(device))) continue;
    const { side, binding, netns } = found;
    const end = ends.find((each) => each.side === side);
    const isOurs = ends.some((each) => each.binding === binding);
    if (!isOurs || (end !== undefined && end.netns.inode !== netns.inode))
      throw new NsmError(
        "PERMISSION_DENIED",
        "foreign-device",
        `interface ${found.interfaceName} of wire ${wireId} was made for another ${isOurs ? "network namespace" : "client or path"}`,
      );
    known.push(device);
  }
  return known;
}

function foundOf({ recovered }: Pick<State, "recovered">, wireId: string): FoundDevice[] {
  return recovered.filter((device) => device.wireId === wireId);
}

/** Of a wire that is applied, else what an earlier life left of it. */
function devicesOf(state: Pick<State, "applied" | "recovered">, wireId: string): readonly Device[] {
  return state.applied.get(wireId)?.devices ?? foundOf(state, wireId).map(deviceOf);
}

function dropFound(state: State, wireId: string): void {
  for (const device of foundOf(state, wireId)) state.recovered.splice(state.recovered.indexOf(device), 1);
}

function deviceOf(found: FoundDevice): Device {
  const { wireId, side, netns, ifindex, interfaceName: name } = found;
  return { wireId, side, netns, ifindex, name, alias: formatAlias(found) };
}

/** Equal for wires that want the same of the kernel; a namespace is the same whichever of its processes names it, and a route whoever asked for it first. */
function fingerprintOf(wanted: Wanted): string {
  const text = JSON.stringify(wanted, (key, value: unknown) => {
    if (key === "pid" || key === "brought" || key === "peerBefore") return undefined;
    return typeof value === "bigint" ? String(value) : value;
  });
  return createHash("sha256").update(text).digest("base64");
}
