/** Domains for tests of links: each a proxy's links behind a real server on the loopback, with an identity and a trust of its own. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Link } from "../../api/gen/link_pb.js";
import { createLinks } from "../../proxy/link/links.ts";
import type { Links, LinksOptions } from "../../proxy/link/links.ts";
import { openLinkStore } from "../../proxy/link/store.ts";
import type { LinkStore } from "../../proxy/link/store.ts";
import type { Trust } from "../../proxy/link/trust.ts";
import { systemClock } from "../../sdk/clock.ts";
import { openServer } from "../../sdk/grpc/server.ts";
import { createSessionPool } from "../../sdk/grpc/sessions.ts";
import { silentLogger } from "../../sdk/log.ts";
import { formatBundle, parseBundle } from "../../sdk/spiffe/bundle.ts";
import { verifySvid } from "../../sdk/spiffe/verify.ts";
import { makeAuthority, x509Of } from "./certificates.ts";
import type { TestAuthority } from "./certificates.ts";
import { makeSource } from "./identity.ts";
import type { TestSource } from "./identity.ts";

export interface FakeTrust extends Trust {
  /** What is trusted beside the own domain. */
  readonly given: ReadonlyMap<string, string>;
  /** Publishes another document. */
  publish(document: string): void;
  /** What the next calls of `set` throw. */
  refusal: Error | undefined;
}

/** An authority whose pushes arrive at once. */
export function fakeTrust(authority: TestAuthority, source: TestSource): FakeTrust {
  const given = new Map<string, string>();
  const listeners = new Set<() => void>();
  let own = bundleOf(authority);
  const push = () => {
    const others = [...given].map(([name, text]) => [name, parseBundle(text).certificates] as const);
    source.push({ bundles: new Map([...others, ...authority.bundles]) });
  };
  const trust: FakeTrust = {
    given,
    refusal: undefined,
    own: () => own,
    onOwnChange(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    publish(document) {
      own = document;
      for (const listener of listeners) listener();
    },
    has: (name) => source.current().bundles.has(name),
    set(name, document) {
      if (trust.refusal !== undefined) return Promise.reject(trust.refusal);
      given.set(name, document);
      push();
      return Promise.resolve();
    },
    remove(name) {
      given.delete(name);
      push();
      return Promise.resolve();
    },
  };
  return trust;
}

export function bundleOf({ ca }: TestAuthority, sequence = 1n): string {
  return formatBundle({ certificates: [x509Of(ca)], jwtKeys: [], sequence, refreshHintSeconds: 300 });
}

export interface Side extends AsyncDisposable {
  readonly links: Links;
  readonly store: LinkStore;
  readonly trust: FakeTrust;
  readonly authority: TestAuthority;
  readonly source: TestSource;
  /** `tcp://127.0.0.1:port` */
  readonly url: string;
  readonly directory: string;
  /** Ends this side as a crash would, and starts it again with the same state. */
  restart(change?: SideOptions): Promise<Side>;
  /** Ends its server and sessions, and leaves its folder. */
  stop(): Promise<void>;
}

export interface SideOptions extends Partial<
  Pick<LinksOptions, "pendingMs" | "clock" | "offers" | "addresses">
> {
  /** Default that of the domain with `.nsm`. */
  readonly authority?: TestAuthority;
  /** Default `/proxy`. */
  readonly path?: string;
  readonly directory?: string;
  readonly source?: TestSource;
  readonly trust?: FakeTrust;
  /** Where it listens; default 0: a free one. */
  readonly port?: number;
}

export async function openSide(domain: string, options: SideOptions = {}): Promise<Side> {
  await using stack = new AsyncDisposableStack();
  const directory = options.directory ?? (await mkdtemp(join(tmpdir(), "nsm-link-")));
  const authority = options.authority ?? (await makeAuthority(`${domain}.nsm`));
  const source = options.source ?? (await makeSource(authority, options.path ?? "/proxy"));
  const trust = options.trust ?? fakeTrust(authority, source);
  const { clock = systemClock } = options;
  const log = silentLogger;
  const base = { source, verify: verifySvid, clock: systemClock, log };
  const pool = stack.use(createSessionPool({ ...base, limits: { connectMs: 750 } }));
  const store = await openLinkStore(directory);
  let url = "";
  const links = createLinks({
    own: { domain, trustDomain: authority.trustDomain, proxyId: source.current().svid.id },
    store,
    trust,
    clock,
    source,
    pool,
    log,
    directory,
    offers: options.offers ?? { to: () => [], onChange: () => new DisposableStack() },
    addresses: options.addresses ?? (() => [url]),
    dialable: (urls) => urls,
    pendingMs: options.pendingMs ?? 20_000,
  });
  const server = stack.use(
    await openServer(
      {
        ...base,
        listen: [`tcp://127.0.0.1:${options.port ?? 0}`],
        others: links.protocols,
        isNeighbour: (id) => links.mayConnect(id),
      },
      (add) => add(Link, links.handlers, ({ spiffeId }) => links.mayConnect(spiffeId)),
    ),
  );
  stack.use(links);
  url = server.addresses[0] ?? "";
  await links.start(url);
  const resources = stack.move();
  const stop = () => resources.disposeAsync();
  return {
    links,
    store,
    trust,
    authority,
    source,
    url,
    directory,
    stop,
    async restart(change = {}) {
      await stop();
      return await openSide(domain, { ...options, authority, source, trust, directory, ...change });
    },
    async [Symbol.asyncDispose]() {
      await stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Joins, and tells what was said on the way. */
export async function joinWith(
  side: Side,
  token: string,
  signal = new AbortController().signal,
): Promise<string[]> {
  const said: string[] = [];
  for await (const text of side.links.join(token, signal)) said.push(text);
  return said;
}

export async function tokenOf(side: Side, lifeMs = 60_000): Promise<string> {
  return (await side.links.createToken(lifeMs)).token;
}
