/** A client that was started again takes the place of its dead predecessor (docs/protocol.md, "Ownership"). */
import { createHash } from "node:crypto";
import type { Connection } from "../../api/gen/connection_pb.js";
import type { CallContext, Element } from "../../sdk/chain.ts";
import type { Events, WithEvents } from "../../sdk/elements/begin.ts";
import { connectionOf } from "../../sdk/elements/update-path.ts";
import { subjectOf } from "../../sdk/jwt.ts";
import type { Logger } from "../../sdk/log.ts";
import type { Dataplane, FoundDevice } from "../dataplane.ts";
import type { WithClientEnd } from "./client-side.ts";
import { hasEnded, processOf } from "../kernel/proc-stat.ts";
import type { ProcessStart } from "../kernel/proc-stat.ts";

interface Owned extends ProcessStart {
  /** Of its network namespace, as the kernel tells it. */
  readonly inode: bigint;
  readonly interfaceName: string;
  /** SPIFFE ids of the hops before us, the client's first. */
  readonly subjects: string;
  /** The id that the client gave it. */
  readonly label: string;
  readonly events: Events;
}

/**
 * When manager and client were killed together, nobody closes the client's wires, and the new client does not know them: their
 * names would be taken until their leases end. So a first Request ends wires of the same network namespace, asked for by the same
 * SPIFFE ids, that have its interface name or the client's id, if the process that asked for them is dead. When the forwarder was
 * killed, too, the device itself says who asked: one that nobody has claimed since is removed under the same conditions.
 * State: the owner of each wire of this node's clients; dropped on close.
 */
export function takeOver(
  dataplane: Pick<Dataplane, "foundAs" | "remove">,
  log: Logger,
): Element<WithEvents & WithClientEnd, WithEvents & WithClientEnd> {
  const owners = new Map<string, Owned>();
  return (next) => ({
    async request(request, ctx) {
      const { id } = connectionOf(request);
      const owned = ownedBy(connectionOf(request), ctx, owners.get(id));
      if (owned !== undefined && !ctx.established) {
        const left = [...owners].filter(([other, before]) => other !== id && isLeftFor(before, owned));
        for (const [connection, { events }] of left) {
          log.info({ connection }, "a new process of its client asks for another wire in its place");
          await events.close("its process has ended, and another one takes its place");
        }
        for (const { wireId } of dataplane
          .foundAs(owned.inode, owned.interfaceName)
          .filter(isUnclaimedBy(owned))) {
          log.info(
            { connection: wireId },
            "a new process asks for an interface that was left by a dead one of its client",
          );
          await dataplane.remove(wireId);
        }
      }
      const response = await next.request(request, owned === undefined ? ctx : withOwner(ctx, owned));
      if (owned !== undefined) owners.set(id, owned);
      return response;
    },
    async close(connection, ctx) {
      owners.delete(connection.id);
      await next.close(connection, ctx);
    },
  });
}

function ownedBy(
  { path }: Connection,
  { clientEnd, events }: CallContext & WithEvents & WithClientEnd,
  known: Owned | undefined,
): Owned | undefined {
  if (clientEnd.kind !== "kernel" || path === undefined) return undefined;
  const { netns, interfaceName } = clientEnd;
  // A refresh by the same process says nothing new of it, and a look into /proc has its price.
  if (known?.pid === netns.pid) return { ...known, interfaceName, events };
  const client = processOf(netns.pid);
  if (client === undefined) return undefined;
  const before = path.pathSegments.slice(0, path.index);
  return {
    ...client,
    inode: netns.inode,
    interfaceName,
    subjects: JSON.stringify(before.map(({ token }) => subjectOf(token) ?? "")),
    label: before[0]?.id ?? "",
    events,
  };
}

/** Written on the client's device: 22 letters for who it is, and which of its processes. */
function ownerText({ subjects, pid, startTime }: Owned): string {
  return `${hashOf(subjects)}.${pid}.${startTime}`;
}

function hashOf(subjects: string): string {
  return createHash("sha256").update(subjects).digest("base64url").slice(0, 22);
}

function withOwner<C extends WithClientEnd>(ctx: C, owned: Owned): C {
  const { clientEnd } = ctx;
  return clientEnd.kind === "kernel" ? { ...ctx, clientEnd: { ...clientEnd, owner: ownerText(owned) } } : ctx;
}

/** Nobody claims what is found: its process, if it lives, is about to. */
function isUnclaimedBy({ subjects }: Owned): (found: FoundDevice) => boolean {
  return ({ owner }) => {
    const [, who, pid, startTime] = /^([\w-]{22})\.(\d+)\.(\d+)$/.exec(owner ?? "") ?? [];
    if (who !== hashOf(subjects) || pid === undefined || startTime === undefined) return false;
    return hasEnded({ pid: Number(pid), startTime });
  };
}

function isLeftFor(before: Owned, now: Owned): boolean {
  return (
    before.inode === now.inode &&
    before.subjects === now.subjects &&
    (before.interfaceName === now.interfaceName || before.label === now.label) &&
    hasEnded(before)
  );
}
