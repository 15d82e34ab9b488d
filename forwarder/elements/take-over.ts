/** A client that was started again takes the place of its dead predecessor (docs/protocol.md, "Ownership"). */
import type { Connection } from "../../api/gen/connection_pb.js";
import type { CallContext, Element } from "../../sdk/chain.ts";
import type { Events, WithEvents } from "../../sdk/elements/begin.ts";
import { connectionOf } from "../../sdk/elements/update-path.ts";
import { subjectOf } from "../../sdk/jwt.ts";
import type { Logger } from "../../sdk/log.ts";
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
 * SPIFFE ids, that have its interface name or the client's id, if the process that asked for them is dead.
 * State: the owner of each wire of this node's clients; dropped on close.
 */
export function takeOver(log: Logger): Element<WithEvents & WithClientEnd, WithEvents & WithClientEnd> {
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
      }
      const response = await next.request(request, ctx);
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

function isLeftFor(before: Owned, now: Owned): boolean {
  return (
    before.inode === now.inode &&
    before.subjects === now.subjects &&
    (before.interfaceName === now.interfaceName || before.label === now.label) &&
    hasEnded(before)
  );
}
