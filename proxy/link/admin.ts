/** What operators ask of a proxy's links, on a socket of its host (api/link.proto, `Links`). */
import { create } from "@bufbuild/protobuf";
import { DurationSchema, durationMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Duration } from "@bufbuild/protobuf/wkt";
import {
  CreateTokenResponseSchema,
  JoinProgressSchema,
  LinkStatusSchema,
  ListResponseSchema,
  RemoveResponseSchema,
  SetAddressResponseSchema,
} from "../../api/gen/link_pb.js";
import type { LinkStatus, Links as LinksService } from "../../api/gen/link_pb.js";
import { NsmError } from "../../sdk/errors.ts";
import type { Handlers } from "../../sdk/grpc/handlers.ts";
import type { Offers } from "./hub.ts";
import type { Links } from "./links.ts";
import { endedOf } from "./state.ts";
import type { LinkRecord } from "./state.ts";

const DEFAULT_LIFE_MS = 15 * 60_000;
const LONGEST_LIFE_MS = 24 * 3_600_000;

/** `noteOf`: what else people should know of the link with a domain; empty for nothing. */
export function linkAdmin(
  links: Links,
  offers: Offers,
  noteOf: (domain: string) => string = () => "",
): Handlers<typeof LinksService> {
  const { hub } = links;
  const statusOf = (link: LinkRecord): LinkStatus => {
    const { domain, trustDomain, proxyId, addresses, dials } = link;
    const { way, sinceMs, why, rttMs, bundleHeardMs, offeredToUs } = hub.live(link.id);
    const isLinked = link.state === "linked";
    return create(LinkStatusSchema, {
      domain,
      trustDomain,
      proxyId,
      addresses: [...addresses],
      dials,
      why,
      state: !isLinked ? link.state : way === undefined ? "down" : "up",
      since: timestampFromMs(isLinked ? Math.max(sinceMs, link.sinceMs) : link.sinceMs),
      way: way?.kind ?? "",
      ...(rttMs !== undefined && { rtt: durationOf(rttMs) }),
      ...(bundleHeardMs !== undefined && { bundleHeard: timestampFromMs(bundleHeardMs) }),
      offeredToUs: [...offeredToUs],
      offeredByUs: [...offers.to(domain)],
      note: noteOf(domain),
    });
  };
  return {
    async createToken({ life }) {
      const lifeMs = life === undefined ? DEFAULT_LIFE_MS : durationMs(life);
      if (!(lifeMs >= 1000 && lifeMs <= LONGEST_LIFE_MS))
        throw new NsmError("INVALID_ARGUMENT", "bad-life", "a token lives 1s to 24h");
      const { token, expiresMs } = await links.createToken(lifeMs);
      return create(CreateTokenResponseSchema, { token, expires: timestampFromMs(expiresMs) });
    },
    async *join({ token }, { signal }) {
      const progress = links.join(token, signal);
      for (;;) {
        const { done, value } = await progress.next();
        if (done === true) {
          yield create(JoinProgressSchema, { linked: statusOf(value) });
          return;
        }
        yield create(JoinProgressSchema, { text: value });
      }
    },
    list: () => {
      const { domain, trustDomain } = hub.own;
      const all = hub.links().toSorted((a, b) => (a.domain < b.domain ? -1 : 1));
      const ended = endedOf(hub.store.current(), hub.clock.now()).map((link) => ({
        domain: link.domain,
        trustDomain: link.trustDomain,
        since: timestampFromMs(link.sinceMs),
        byUs: link.by === "us",
        told: link.isTold,
      }));
      return Promise.resolve(
        create(ListResponseSchema, { domain, trustDomain, links: all.map(statusOf), ended }),
      );
    },
    async setAddress({ domain, addresses }, { signal }) {
      await links.setAddresses(domain, addresses, signal);
      return create(SetAddressResponseSchema);
    },
    remove: async ({ domain }) => create(RemoveResponseSchema, { told: await links.remove(domain) }),
  };
}

/** With fractions of a millisecond, which `durationFromMs` cuts. */
function durationOf(ms: number): Duration {
  const nanos = Math.round(ms * 1e6);
  return create(DurationSchema, { seconds: BigInt(Math.floor(nanos / 1e9)), nanos: nanos % 1e9 });
}

/** Of a proxy without a name of its own domain. */
export function noLinkAdmin(): Handlers<typeof LinksService> {
  const refuse = () => {
    throw new NsmError(
      "FAILED_PRECONDITION",
      "no-domain",
      "this proxy does not know the name of its own domain, by which others would link it: set NSM_DOMAIN of the proxy",
    );
  };
  return {
    createToken: refuse,
    // oxlint-disable-next-line eslint/require-yield -- it only refuses
    async *join() {
      refuse();
    },
    setAddress: refuse,
    list: refuse,
    remove: refuse,
  };
}
