/** Ends the wires of a client that ended without a word (docs/protocol.md, "The death of a client"). */
import type { Element } from "../sdk/chain.ts";
import type { Clock } from "../sdk/clock.ts";
import type { Events, WithEvents } from "../sdk/elements/begin.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";
import { holdProcess, whenEnded } from "../sdk/grpc/process.ts";
import type { OwnedProcess } from "../sdk/grpc/process.ts";
import type { PeerProcess } from "../sdk/grpc/peer.ts";
import type { Logger } from "../sdk/log.ts";

export interface ClientDeathOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** How long the wires of a process that ended wait for its successor: a restarted client takes them over by its next Request. */
  readonly clientGraceMs: number;
}

/** A process that asked for wires. */
interface Client {
  readonly process: OwnedProcess;
  readonly wires: Map<string, Events>;
  /** Of the process while it lives, then of the grace. */
  watch: Disposable;
}

/**
 * Remembers which process each connection was last asked for by, and closes those of a process that ended. Callers on other
 * nodes are somebody else's to watch. State: one descriptor a process with wires, dropped with the last of them.
 */
export function closeForDead({ clock, log, clientGraceMs }: ClientDeathOptions): Element<WithEvents> {
  const byPid = new Map<number, Client>();
  const byWire = new Map<string, Client>();

  const forget = (client: Client) => {
    client.watch[Symbol.dispose]();
    client.process[Symbol.dispose]();
    if (byPid.get(client.process.pid) === client) byPid.delete(client.process.pid);
  };
  const release = (id: string) => {
    const client = byWire.get(id);
    byWire.delete(id);
    client?.wires.delete(id);
    if (client?.wires.size === 0) forget(client);
  };
  const closeAll = (client: Client) => {
    const { pid } = client.process;
    for (const [id, events] of client.wires) {
      byWire.delete(id);
      void events.close(`process ${pid}, which asked for it, has ended`);
    }
    client.wires.clear();
    forget(client);
  };
  const waitForSuccessor = (client: Client) => {
    const { pid } = client.process;
    log.info({ pid, wires: client.wires.size, graceMs: clientGraceMs }, "a client ended without closing");
    client.watch[Symbol.dispose]();
    client.watch = clock.timer(clientGraceMs, () => closeAll(client));
  };
  /** Undefined when the process has ended already. */
  const clientOf = (peer: PeerProcess): Client | undefined => {
    const known = byPid.get(peer.pid);
    if (known?.process.isAlive() === true) return known;
    const process = holdProcess(peer);
    if (process === undefined) return undefined;
    const client: Client = { process, wires: new Map(), watch: { [Symbol.dispose]: () => undefined } };
    client.watch = whenEnded(process, clock, () => waitForSuccessor(client));
    byPid.set(peer.pid, client);
    return client;
  };

  return (next) => ({
    async request(request, ctx) {
      const { id } = connectionOf(request);
      const response = await next.request(request, ctx);
      const caller = ctx.peer?.process;
      if (caller === undefined) return response;
      const client = clientOf(caller);
      if (client !== undefined) {
        if (byWire.get(id) !== client) release(id);
        client.wires.set(id, ctx.events);
        byWire.set(id, client);
      }
      return response;
    },
    async close(connection, ctx) {
      release(connection.id);
      await next.close(connection, ctx);
    },
  });
}
