/** The links of one proxy: made by tokens, kept, told of changes, ended (docs/links.md). */
import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { Link, TellRequestSchema, TellResponseSchema } from "../../api/gen/link_pb.js";
import { NsmError } from "../../sdk/errors.ts";
import type { OtherProtocols } from "../../sdk/grpc/accept.ts";
import type { Handlers } from "../../sdk/grpc/handlers.ts";
import type { SessionPool } from "../../sdk/grpc/sessions.ts";
import { createHttpsDoor } from "../../sdk/https-door.ts";
import type { Logger } from "../../sdk/log.ts";
import type { Mesh } from "../../sdk/mesh.ts";
import { parseBundle } from "../../sdk/spiffe/bundle.ts";
import { ask } from "./ask.ts";
import { createAddressBook } from "./addresses.ts";
import { createFarewells } from "./farewell.ts";
import { createHub, poolOverLinks } from "./hub.ts";
import type { Hub, Offers, Way } from "./hub.ts";
import { joinByToken } from "./join.ts";
import { createKeeping } from "./keeping.ts";
import type { Keeping } from "./keeping.ts";
import { createLife } from "./life.ts";
import { createNewsDesk } from "./news.ts";
import type { News } from "./news.ts";
import { ownCaSha256 } from "./pin.ts";
import { createLinkRoutes } from "./redeem.ts";
import { addToken } from "./state.ts";
import type { LinkRecord, Own } from "./state.ts";
import type { LinkStore } from "./store.ts";
import { formatToken, hashOfSecret, isTcpAddress } from "./token.ts";
import type { Trust } from "./trust.ts";
import { TUNNEL, createTunnelDoors, openTunnelEnd } from "./tunnels.ts";

/** A call over a way that may not work. */
const TRY_MS = 2000;

export interface LinksOptions extends Pick<Mesh, "clock" | "source" | "pool"> {
  readonly own: Own;
  readonly store: LinkStore;
  readonly trust: Trust;
  readonly log: Logger;
  readonly offers: Offers;
  /** Private to this process's user; sockets of tunnels. */
  readonly directory: string;
  /** Where others can dial this proxy; none when nobody can. */
  readonly addresses: () => readonly string[];
  /** Which of the addresses that another domain names may be dialled. */
  readonly dialable: (urls: readonly string[]) => readonly string[];
  /** How long a link may be half made. */
  readonly pendingMs: number;
}

export interface Links extends AsyncDisposable {
  readonly hub: Hub;
  /** Knows `link://<domain>`. */
  readonly pool: SessionPool;
  /** What else the proxy's server takes in. */
  readonly protocols: OtherProtocols;
  readonly handlers: Handlers<typeof Link>;
  /** Proxies that may have a session: those of links, also of such that are being made. */
  mayConnect(spiffeId: string): boolean;
  /** Begins to keep what was linked before. `ownListener`: where this proxy's server listens. */
  start(ownListener: string): Promise<void>;
  /** Throws FAILED_PRECONDITION `no-address`. */
  createToken(lifeMs: number): Promise<{ readonly token: string; readonly expiresMs: number }>;
  /** See `joinByToken`. */
  join(token: string, signal: AbortSignal): AsyncGenerator<string, LinkRecord, undefined>;
  /** See `AddressBook`. */
  setAddresses(domain: string, urls: readonly string[], signal: AbortSignal): Promise<void>;
  /** True when the other side was told. Throws NOT_FOUND `not-linked`. */
  remove(domain: string): Promise<boolean>;
}

export function createLinks(options: LinksOptions): Links {
  const { own, store, trust, clock, log, pool, source, offers, pendingMs } = options;
  const stop = new AbortController();
  const stack = new AsyncDisposableStack();
  const hub = createHub(options);
  const doors = stack.use(createTunnelDoors(options.directory, clock, log));
  let ownListener = "";

  const tell = async (link: LinkRecord, way: Way, news: News) => {
    const target = { url: way.url, expect: (id: string) => id === link.proxyId };
    const request = create(TellRequestSchema, { ...news, linkId: link.id });
    await pool.unary(target, Link.method.tell, request, { timeoutMs: TRY_MS, signal: stop.signal });
  };
  const book = createAddressBook({ hub, dialable: options.dialable, isKnownThere });
  const farewells = stack.use(createFarewells({ hub, source, stop: stop.signal }));
  const desk = stack.use(
    createNewsDesk({
      hub,
      trust,
      offers,
      addresses: options.addresses,
      hearAddresses: (link, urls) => book.hear(link, urls),
      tell,
      stop: stop.signal,
    }),
  );
  const life = stack.use(
    createLife({
      hub,
      trust,
      doors,
      pendingMs,
      stop: stop.signal,
      keeping: () => keeping,
      dial: {
        pong: async (link, way, number) => await tell(link, way, { pong: { number } }),
        openTunnel: (link, url, ticket, signal) =>
          openTunnelEnd(
            { source, clock, log, ownListener: () => ownListener },
            { url, link, ticket, signal },
          ),
        isKnownThere,
        introduce: async (link, url) => await tell(link, { kind: "direct", url }, desk.newsFor(link)),
      },
      async sayGoodbye(link) {
        const { way } = hub.live(link.id);
        if (way === undefined) throw new NsmError("UNAVAILABLE", "domain-silent", "the link is down");
        await tell(link, way, { unlinked: true });
      },
    }),
  );
  const keeping: Keeping = stack.use(
    createKeeping({
      hub,
      doors,
      async verify(link, way) {
        await tell(link, way, { ...desk.newsFor(link), verify: true });
        await life.confirm(link);
      },
    }),
  );
  const { begin, drop } = life;
  const routes = createLinkRoutes({
    hub,
    trust,
    drop,
    begin,
    onUnlinked: (link) => life.dropSilently(link),
    dialable: options.dialable,
  });
  const door = stack.use(createHttpsDoor(routes, { clock, log }));

  async function isKnownThere({ id }: LinkRecord, url: string, signal: AbortSignal): Promise<boolean> {
    const link = hub.links().find((each) => each.id === id);
    if (link === undefined) return false;
    const question = { url, path: "/linked", body: { linkId: id }, nowMs: clock.now(), signal };
    try {
      await ask(question, { ...link, certificates: parseBundle(link.bundle).certificates });
      return true;
    } catch (error) {
      if (error instanceof NsmError && error.reason === "not-linked") return false;
      throw error;
    }
  }

  return {
    hub,
    pool: poolOverLinks(pool, (target) => hub.targetOf(target)),
    protocols: {
      https: (socket) => door.accept(socket),
      verified: new Map([[TUNNEL, (peer, socket) => doors.accept(peer, socket)]]),
    },
    handlers: {
      keep: (request, caller) => keeping.keep(request, caller),
      async tell(request, { peer }) {
        const link = hub.linkOf(peer.spiffeId, request.linkId);
        if (request.unlinked) {
          log.info({ domain: link.domain }, "the other side has removed the link");
          life.dropSilently(link);
        } else {
          if (request.pong !== undefined) keeping.pong(link, request.pong.number);
          await desk.hear(link, request);
          if (request.verify && link.dials) await life.confirm(link);
        }
        return create(TellResponseSchema);
      },
    },
    mayConnect: (id) => hub.byPeer(id) !== undefined,
    async start(listener) {
      ownListener = listener;
      farewells.begin();
      for (const link of hub.links()) {
        // Who was joining has gone with the process before.
        if (link.state === "leaving" || (link.state === "pending" && link.dials)) {
          life.dropSilently(link);
          continue;
        }
        await begin(link);
        if (link.gaveBundle)
          trust
            .set(link.trustDomain, link.bundle, stop.signal)
            .catch((err: unknown) => log.debug({ domain: link.domain, err }, "known bundle not given again"));
      }
    },
    async createToken(lifeMs) {
      const addresses = options.addresses().filter(isTcpAddress);
      if (addresses.length === 0)
        throw new NsmError(
          "FAILED_PRECONDITION",
          "no-address",
          "this proxy has no address that another domain could dial: name one (NSM_EXTERNAL_URL of the proxy), or make the token in the other domain and join here",
        );
      const id = randomBytes(12).toString("base64url");
      const secret = randomBytes(32).toString("base64url");
      const expiresMs = clock.now() + lifeMs;
      const caSha256 = ownCaSha256(source.current(), clock.now());
      const { domain, proxyId } = own;
      await store.update((state) =>
        addToken(state, { id, hash: hashOfSecret(secret), expiresMs }, clock.now()),
      );
      return { token: formatToken({ id, secret, addresses, domain, proxyId, caSha256 }), expiresMs };
    },
    join: (token, signal) =>
      joinByToken(
        token,
        { hub, trust, addresses: options.addresses, pendingMs, begin, drop },
        AbortSignal.any([signal, stop.signal]),
      ),
    setAddresses: (domain, urls, signal) => book.set(domain, urls, AbortSignal.any([signal, stop.signal])),
    async remove(domain) {
      const link = hub.byDomain(domain);
      if (link !== undefined) {
        const isTold = await drop(link);
        farewells.begin();
        return isTold;
      }
      throw new NsmError(
        "NOT_FOUND",
        "not-linked",
        `${own.domain} has no link with ${domain}: nsm link list shows those that there are`,
      );
    },
    async [Symbol.asyncDispose]() {
      stop.abort(new NsmError("CANCELLED", "stopping", "the proxy stops"));
      await stack.disposeAsync();
    },
  };
}
