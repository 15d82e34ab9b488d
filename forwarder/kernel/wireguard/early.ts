/** Devices that are on their way into a pod before it is known what they shall be: to move one there takes the kernel ten milliseconds. */
import { NsmError } from "../../../sdk/errors.ts";
import { setLink } from "../../../sdk/netlink/link.ts";
import type { NewDevice } from "../../../sdk/netlink/link.ts";
import { openNetlink } from "../../../sdk/netlink/socket.ts";
import type { NetnsRef } from "../../wire.ts";
import { openNetns } from "../netns.ts";
import { readLink } from "../observe.ts";
import type { Place } from "./driver.ts";
import { ifindexOf, stopProgram } from "./program.ts";
import type { Program } from "./program.ts";
import type { Spares } from "./spares.ts";

export interface Early {
  /** Returns at once; what fails is told by nobody, the wire is made without it. */
  begin(wireId: string, place: Place): void;
  /** The caller's from then on; undefined when there is none. */
  take(wireId: string): Promise<Prepared | undefined>;
  /** Resolves when nothing of it is left. Fine when there is none. */
  drop(wireId: string): Promise<void>;
  dropAll(): Promise<void>;
}

/** A program whose device is on its way. */
export interface Prepared {
  readonly program: Program;
  /** The namespace where the device is by then, under its first name. Undefined: in the node still, or gone. */
  readonly placed: Promise<bigint | undefined>;
}

export function createEarly(spares: Pick<Spares, "take">): Early {
  const begun = new Map<string, Promise<Prepared | undefined>>();
  async function take(wireId: string): Promise<Prepared | undefined> {
    const prepared = begun.get(wireId);
    begun.delete(wireId);
    return await prepared;
  }
  async function drop(wireId: string): Promise<void> {
    const prepared = await take(wireId);
    await prepared?.placed;
    if (prepared !== undefined) await stopProgram(prepared.program);
  }
  return {
    begin(wireId, place) {
      const prepare = async (): Promise<Prepared> => {
        const netns = place.netnsOf();
        const program = await spares.take();
        return { program, placed: put(program, netns, place.group).catch(() => undefined) };
      };
      if (!begun.has(wireId))
        begun.set(
          wireId,
          prepare().catch(() => undefined),
        );
    },
    take,
    drop,
    dropAll: async () => void (await Promise.all([...begun.keys()].map(drop))),
  };
}

async function put(program: Program, ref: NetnsRef, group: number): Promise<bigint> {
  using netns = openNetns(ref);
  await moveIntoPod(program, { name: program.tun, netnsFd: netns.fd, group, mtu: 0 });
  return netns.inode;
}

/** Namespace, name and index change in one message; a taken name is found out only after the move. */
export async function moveIntoPod(
  { tun, parkedIn }: Program,
  { name, netnsFd, group, mtu }: Pick<NewDevice, "name" | "netnsFd" | "group" | "mtu">,
): Promise<void> {
  using socket = openNetlink("route", parkedIn);
  const link = await readLink(socket, { name: tun });
  if (link === undefined) throw new NsmError("UNAVAILABLE", "wireguard-go-failed", `device ${tun} is gone`);
  const move = { netnsFd, name, ifindex: ifindexOf(tun) };
  await socket.execute(setLink({ ifindex: link.ifindex, group, ...(mtu > 0 && { mtu }), move }));
}
