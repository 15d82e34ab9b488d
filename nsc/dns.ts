/**
 * Names for the programs of the client's namespace: while a wire offers name servers, a resolver of ours answers them, and
 * resolv.conf points to it (docs/protocol.md, "Names").
 *
 *   idle --a wire offers servers--> listening, file rewritten --no wire does, or the end--> file as before, idle
 */
import { clone, create } from "@bufbuild/protobuf";
import type { Connection } from "../api/gen/connection_pb.js";
import { ConnectionContextSchema, DNSContextSchema } from "../api/gen/connectioncontext_pb.js";
import { NetworkServiceRequestSchema } from "../api/gen/networkservice_pb.js";
import { createBackoff } from "../sdk/backoff.ts";
import { delay } from "../sdk/clock.ts";
import type { Clock } from "../sdk/clock.ts";
import type { ServerGroup } from "../sdk/dns/routing.ts";
import type { DnsServerOptions } from "../sdk/dns/server.ts";
import { errnoOf } from "../sdk/errors.ts";
import type { Logger } from "../sdk/log.ts";
import { acceptDnsContext } from "./dns-contexts.ts";
import type { Manager } from "../sdk/manager-client.ts";
import {
  SYSTEM_RESOLV_CONF,
  isOwnFile,
  ndotsOf,
  originalOf,
  parseResolvConf,
  readConf,
  rewritten,
  writeConf,
} from "./resolv-conf.ts";
import type { ResolvConf } from "./resolv-conf.ts";

/** resolv.conf cannot name another port. */
const DNS_PORT = 53;

export interface NamesOptions {
  readonly host: string;
  readonly port: number;
  /** Domains of wires that count though they lie within the pod's own, as `parseDomain` writes them. Default none. */
  readonly acceptedDomains?: readonly string[];
  /** The resolv.conf to rewrite; undefined: the system's own, where it serves nobody else. */
  readonly path: string | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface Names extends AsyncDisposable {
  /** What the connection's context says counts from now on. */
  update(connection: Connection): void;
  /** The connection's servers are not asked any more. */
  remove(id: string): void;
}

/** A file that an earlier life left rewritten is put back at once. Never rejects: a client without names still has its wires. */
export function openNames(options: NamesOptions): Names {
  const { host, clock, log, acceptedDomains: accepted = [] } = options;
  const file = openFile(options);
  const offers = new Map<string, readonly ServerGroup[]>();
  /** What was refused of each connection, as it was said last. */
  const complaints = new Map<string, string>();
  let own: ResolvConf = file.read();

  const groups = (): readonly ServerGroup[] => {
    const servers = own.servers.filter((server) => server !== host || options.port !== DNS_PORT);
    return [{ servers, domains: own.domains, isOwn: true }, ...[...offers.values()].flat()];
  };
  let forget = () => {};

  const stop = new AbortController();
  const unserved = (err: unknown) => log.error({ err }, "names of wires are not resolved");
  let serving: { readonly end: AbortController; readonly ended: Promise<void> } | undefined;
  const adjust = () => {
    if (offers.size > 0 && serving === undefined && !stop.signal.aborted) {
      own = file.read();
      const end = new AbortController();
      serving = { end, ended: serve(AbortSignal.any([end.signal, stop.signal])).catch(unserved) };
    } else if (offers.size === 0 && serving !== undefined) {
      file.restore();
      serving.end.abort();
      serving = undefined;
    }
  };
  /** Most wires offer no names: what answers for them is loaded with the first that does. */
  const loadResolver = async () => {
    const [{ createResolver }, { createUpstreams }] = await Promise.all([
      import("../sdk/dns/resolver.ts"),
      import("../sdk/dns/upstream.ts"),
    ]);
    const resolver = createResolver({
      groups,
      ndots: () => ndotsOf(own),
      upstreams: createUpstreams({ clock }),
      clock,
    });
    forget = resolver.forget;
    return resolver;
  };
  const serve = async (signal: AbortSignal): Promise<void> => {
    const server = await listen({ host, port: options.port, resolver: await loadResolver(), log }, signal);
    if (server === undefined) return;
    await using listening = server;
    void listening;
    file.rewrite();
    log.info({ address: `${host}:${server.port}` }, "names of wires are resolved");
    await aborted(signal);
  };
  const change = (id: string, next: readonly ServerGroup[]) => {
    const before = offers.get(id) ?? [];
    if (JSON.stringify(before) === JSON.stringify(next)) return;
    if (next.length === 0) offers.delete(id);
    else offers.set(id, next);
    forget();
    adjust();
  };

  const onExit = () => file.restore();
  process.on("exit", onExit);
  return {
    update(connection) {
      const { groups: next, refused } = acceptDnsContext(connection, own.domains, accepted);
      const { id, networkServiceEndpointName: nse } = connection;
      change(id, next);
      const said = JSON.stringify(refused);
      if (refused.length > 0 && complaints.get(id) !== said)
        log.warn({ connection: id, nse, refused }, "some name servers of an endpoint are not used");
      complaints.set(id, said);
    },
    remove(id) {
      complaints.delete(id);
      change(id, []);
    },
    async [Symbol.asyncDispose]() {
      file.restore();
      process.off("exit", onExit);
      stop.abort();
      await serving?.ended;
    },
  };
}

/** Tries until it listens; undefined when the signal aborts first. */
async function listen(options: DnsServerOptions, signal: AbortSignal) {
  const { host, port, log } = options;
  const { openDnsServer } = await import("../sdk/dns/server.ts");
  const backoff = createBackoff({ firstMs: 500, maxMs: 30_000 });
  for (let complaint = ""; !signal.aborted;) {
    try {
      return await openDnsServer(options);
    } catch (err) {
      if (errnoOf(err) !== complaint)
        log.warn(
          { err, address: `${host}:${port}` },
          errnoOf(err) === "EACCES"
            ? "names of wires are not resolved: port 53 needs CAP_NET_BIND_SERVICE or net.ipv4.ip_unprivileged_port_start=53"
            : "names of wires are not resolved, trying again",
        );
      complaint = errnoOf(err) ?? "";
      await delay(backoff.next(), signal).catch(() => undefined);
    }
  }
  return undefined;
}

interface File {
  /** The file as it is, or was before it was rewritten. */
  read(): ResolvConf;
  rewrite(): void;
  /** Does nothing to a file that is not rewritten. */
  restore(): void;
}

function openFile({ host, port, path: given, log }: NamesOptions): File {
  const path = given ?? SYSTEM_RESOLV_CONF;
  const isUsed = port === DNS_PORT && (given !== undefined || isOwnFile(path));
  const attempt = (what: string, act: () => void) => {
    try {
      act();
    } catch (err) {
      log.warn({ err, path }, what);
    }
  };
  const original = () => {
    const text = readConf(path);
    return { text, original: originalOf(text, host) };
  };
  const file: File = {
    read() {
      let conf = parseResolvConf("");
      attempt("resolv.conf cannot be read, only the name servers of wires are asked", () => {
        const now = original();
        conf = parseResolvConf(now.original ?? now.text);
      });
      return conf;
    },
    rewrite() {
      if (!isUsed) {
        const why =
          port === DNS_PORT
            ? `${path} may serve others than this network namespace: name the file in NSM_RESOLV_CONF`
            : "it cannot name a port";
        log.warn({ path }, `programs are not told of the resolver: ${why}`);
        return;
      }
      attempt("programs are not told of the resolver: resolv.conf cannot be written", () => {
        const now = original();
        writeConf(path, rewritten(now.original ?? now.text, host));
      });
    },
    restore() {
      if (!isUsed) return;
      attempt("resolv.conf could not be put back as it was", () => {
        const before = original().original;
        if (before !== undefined) writeConf(path, before);
      });
    },
  };
  file.restore();
  return file;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** Each answer's name servers count from then on; a request brings none, because endpoints only append to what they get. */
export function followDnsContexts(manager: Manager, names: Names): Manager {
  return {
    ...manager,
    async request(request, signal) {
      const asked = clone(NetworkServiceRequestSchema, request);
      if (asked.connection !== undefined) {
        const context = (asked.connection.context ??= create(ConnectionContextSchema));
        context.dnsContext = create(DNSContextSchema);
      }
      const response = await manager.request(asked, signal);
      names.update(response);
      return response;
    },
    async close(connection, signal) {
      names.remove(connection.id);
      await manager.close(connection, signal);
    },
  };
}
