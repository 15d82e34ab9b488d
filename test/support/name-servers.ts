/** A resolver whose name servers are functions, on a clock of the test's. */
import { createResolver } from "../../sdk/dns/resolver.ts";
import type { ServerGroup } from "../../sdk/dns/routing.ts";
import { answerTo, askedOf, queryFor, read } from "./dns.ts";
import type { Says } from "./dns.ts";
import { createFakeClock } from "./fake-clock.ts";

type Server = (name: string, type: string) => Says | "hangs" | "refusesConnections";

export const OWN: ServerGroup = { servers: ["10.96.0.10"], domains: [], isOwn: true };
export const wire = (server: string, ...domains: string[]): ServerGroup => ({
  servers: [server],
  domains,
  isOwn: false,
});
export const one = (address: string, ttl?: number): Says => ({
  addresses: [address],
  ...(ttl !== undefined && { ttl }),
});

/** A resolver; servers by address; everything that they were asked, in order, and how many questions are open. */
export function build(groups: readonly ServerGroup[], servers: Readonly<Record<string, Server>>, ndots = 1) {
  const clock = createFakeClock();
  const asked: string[] = [];
  let open = 0;
  const current = [...groups];
  const resolver = createResolver({
    clock,
    groups: () => current,
    ndots: () => ndots,
    upstreams: {
      async exchange(server, query, signal) {
        const { name, type } = askedOf(query);
        asked.push(`${server} ${name}${type === "A" ? "" : ` ${type}`}`);
        open++;
        try {
          const says = servers[server]?.(name, type) ?? "servFail";
          if (says === "refusesConnections") throw new Error("ECONNREFUSED");
          if (says === "hangs") await aborted(signal);
          else return answerTo(query, says);
          throw new Error("aborted");
        } finally {
          open--;
        }
      },
    },
  });
  const ask = async (
    name: string,
    options: Parameters<typeof queryFor>[1] & { from?: string; isOwn?: boolean } = {},
  ) => {
    const { from = "127.0.0.1", isOwn = true } = options;
    const reply = await resolver.answer(queryFor(name, options), from, isOwn);
    if (reply === undefined) throw new Error("no reply");
    return read(reply.bytes);
  };
  return { clock, asked, ask, resolver, groups: current, open: () => open };
}

export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

export const knows =
  (table: Readonly<Record<string, Says>>): Server =>
  (name) =>
    table[name.toLowerCase()] ?? "nxDomain";
