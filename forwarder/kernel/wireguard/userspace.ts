/**
 * WireGuard by the program wireguard-go, one process a wire, for kernels without the module.
 *
 * The program's device is moved from the node into the pod and renamed. Configuration goes over the program's socket, which keeps
 * the first name; the index of the device, which follows from that name, tells this and the next forwarder which socket it is.
 */
import { basename } from "node:path";
import { systemClock } from "../../../sdk/clock.ts";
import { NsmError } from "../../../sdk/errors.ts";
import { closeFd, newNetns } from "../../../sdk/native.ts";
import { setLink } from "../../../sdk/netlink/link.ts";
import type { NewDevice } from "../../../sdk/netlink/link.ts";
import { openNetlink } from "../../../sdk/netlink/socket.ts";
import { inodeOfFd } from "../netns.ts";
import { busyUdpPorts } from "../udp-ports.ts";
import type { WireguardDriver } from "./driver.ts";
import { createEarly, moveIntoPod } from "./early.ts";
import type { Prepared } from "./early.ts";
import { allowFragments } from "./outer-packets.ts";
import {
  PROGRAM,
  endOf,
  ifindexOf,
  ownSockets,
  processOf,
  removeStrays,
  socketOf,
  startProgram,
  stopProgram,
  until,
} from "./program.ts";
import type { Program } from "./program.ts";
import { createSpares } from "./spares.ts";
import { GET, askProgram, formatDevice, formatNewPeer, formatPlace, parseState } from "./uapi.ts";

/** It is up as soon as it runs; to kernels before 4.20 it looks once a second. */
const UP_MS = 4000;

/** Removes first what a forwarder of this node left half made. `count`: so many programs wait for wires where there are some. */
export async function openUserspaceWireguard(count: number): Promise<WireguardDriver> {
  await removeStrays();
  // Devices that wait are in nobody's way there, and go with this process however it ends; their programs with them.
  const parking = newNetns();
  const park = async (program: Program): Promise<Program> => {
    try {
      await moveIntoPod(program, { name: program.tun, netnsFd: parking, group: 0, mtu: 0 });
      return { ...program, parkedIn: parking };
    } catch (error) {
      await stopProgram(program);
      throw error;
    }
  };
  const spares = createSpares({ count, start: startProgram, park, stop: stopProgram, clock: systemClock });
  let isOpen = true;
  const early = createEarly(spares);
  /** First name of the device of each wire. */
  const tuns = new Map<string, string>();
  const tell = async (ifindex: number, words: string) =>
    void (await askProgram(socketOfDevice(ifindex), words));

  async function end(wireId: string): Promise<void> {
    const tun = tuns.get(wireId);
    tuns.delete(wireId);
    if (tun !== undefined) await endOf(tun);
  }
  return {
    mode: "userspace",
    linkKind: "tun",
    prepare(wireId, place) {
      spares.use(wireId);
      early.begin(wireId, place);
      return {
        async [Symbol.asyncDispose]() {
          await early.drop(wireId);
          if (!tuns.has(wireId)) spares.leave(wireId);
        },
      };
    },
    async create(wireId, device, shape) {
      await end(wireId);
      requireFreePort(shape.localPort);
      spares.use(wireId);
      const prepared = await early.take(wireId);
      const program = prepared?.program ?? (await spares.take());
      try {
        const words = formatDevice(shape);
        const [placed, configured] = await Promise.allSettled([
          place(program, device, prepared),
          askProgram(socketOf(program.tun), words),
        ]);
        if (placed.status === "rejected") throw placed.reason;
        if (configured.status === "rejected") throw configured.reason;
        tuns.set(wireId, program.tun);
        return ifindexOf(program.tun);
      } catch (error) {
        await stopProgram(program);
        throw error;
      }
    },
    async read(_wireId, _netns, ifindex) {
      try {
        return parseState(await askProgram(socketOfDevice(ifindex), GET));
      } catch (error) {
        if (error instanceof NsmError && error.reason === "wireguard-go-gone") return undefined;
        throw error;
      }
    },
    configure: (_wireId, _netns, ifindex, shape) => tell(ifindex, formatDevice(shape)),
    renewPeer: (_wireId, _netns, ifindex, peer) => tell(ifindex, formatNewPeer(peer)),
    movePeer: (_wireId, _netns, ifindex, peer) => tell(ifindex, formatPlace(peer)),
    // Said anew where the peer is, wireguard-go forgets the address that it sent from, which it keeps to after that has gone.
    beat: (_wireId, _netns, ifindex, peer) => tell(ifindex, formatPlace(peer)),
    async ready(wireId, { localPort }, signal) {
      if (await until(() => busyUdpPorts().has(localPort), UP_MS, signal)) {
        const pid = processOf(tuns.get(wireId) ?? "");
        if (pid !== undefined) allowFragments(pid);
        return;
      }
      throw new NsmError(
        "UNAVAILABLE",
        "port-busy",
        `wire ${wireId}: ${PROGRAM} did not open UDP port ${localPort} within ${UP_MS} ms: is something else using it?`,
      );
    },
    async forget(wireId) {
      await end(wireId);
      spares.leave(wireId);
    },
    async retain(found) {
      for (const tun of ownTuns()) {
        const wireId = found.find(({ ifindex }) => ifindex === ifindexOf(tun))?.wireId;
        if (wireId === undefined) await endOf(tun);
        else tuns.set(wireId, tun);
      }
      for (const wireId of tuns.keys()) spares.use(wireId);
    },
    async [Symbol.asyncDispose]() {
      await early.dropAll();
      await spares[Symbol.asyncDispose]();
      if (isOpen) closeFd(parking);
      isOpen = false;
    },
  };
}

/** In the pod under its name. Throws KernelError EEXIST when the name is taken. */
async function place(program: Program, device: NewDevice, prepared: Prepared | undefined): Promise<void> {
  const { tun } = program;
  const inode = await prepared?.placed;
  if (inode === undefined) return await moveIntoPod(program, device);
  const { netnsFd, name, group, mtu } = device;
  if (inode !== inodeOfFd(netnsFd))
    throw new NsmError("UNAVAILABLE", "wireguard-go-failed", `device ${tun} is in another namespace`);
  using pod = openNetlink("route", netnsFd);
  await pod.execute(setLink({ ifindex: ifindexOf(tun), name, group, ...(mtu > 0 && { mtu }) }));
}

function requireFreePort(port: number): void {
  if (busyUdpPorts().has(port))
    throw new NsmError(
      "UNAVAILABLE",
      "port-busy",
      `UDP port ${port} is in use on this node: request again to get another one`,
    );
}

const ownTuns = () => ownSockets().map((file) => basename(file, ".sock"));

/** Asked for once a look at a tunnel: a name is found again among all, which are few hundred at most. */
function socketOfDevice(ifindex: number): string {
  const tun = ownTuns().find((each) => ifindexOf(each) === ifindex);
  if (tun !== undefined) return socketOf(tun);
  throw new NsmError("UNAVAILABLE", "wireguard-go-gone", `no WireGuard program has device ${ifindex}`);
}
