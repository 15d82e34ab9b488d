/** What a proxy answers over https to strangers: its bundle, a join with a token and its end, and whether a link is still known. */
import * as z from "zod";
import { NsmError, messageOf } from "../../sdk/errors.ts";
import type { CodeName } from "../../sdk/errors.ts";
import type { HttpAnswer, HttpQuestion, Routes } from "../../sdk/https-door.ts";
import { parseBundle } from "../../sdk/spiffe/bundle.ts";
import { isSpiffeId } from "../../sdk/spiffe/id.ts";
import { verifySvid } from "../../sdk/spiffe/verify.ts";
import type { Hub } from "./hub.ts";
import { checkClocks, checkToken, endWasTold, redeem } from "./state.ts";
import type { LinkRecord } from "./state.ts";
import { isDomainName } from "./token.ts";
import type { Trust } from "./trust.ts";

const ID = z.string().regex(/^[A-Za-z0-9_-]{16,64}$/);

export const JoinBody = z.object({
  version: z.literal(1),
  token: z.object({ id: z.string().max(64), secret: z.string().max(64) }),
  /** Chosen by the one who joins. */
  linkId: ID,
  /** Wall clock of the one who joins. */
  timeMs: z.number(),
  domain: z.string().refine(isDomainName),
  trustDomain: z.string().max(255),
  proxyId: z.string().refine(isSpiffeId),
  bundle: z.string(),
  /** Where it can be dialled; none if it cannot. */
  addresses: z.array(z.string().max(300)).max(8),
});
export type JoinBody = z.infer<typeof JoinBody>;

export const LinkedBody = z.object({ linkId: ID });

export interface RedeemOptions {
  readonly hub: Hub;
  readonly trust: Trust;
  /** Takes back what was begun. */
  readonly drop: (link: LinkRecord) => Promise<unknown>;
  /** The other side has ended a link that stood. */
  readonly onUnlinked: (link: LinkRecord) => void;
  /** After a pending link was written down: what belongs to one begins. */
  readonly begin: (link: LinkRecord) => Promise<void>;
  /** Which of the addresses that somebody names may be dialled. */
  readonly dialable: (urls: readonly string[]) => readonly string[];
}

export function createLinkRoutes(options: RedeemOptions): Routes {
  const { hub, trust } = options;
  return {
    "GET /bundle": () => ({ status: 200, body: trust.own() }),
    "POST /join": (question) => answered(() => join(question, options)),
    "POST /linked": ({ body }) =>
      answered(async () => {
        const { linkId } = read(LinkedBody, body);
        const link = hub.links().find(({ id, state }) => id === linkId && state !== "leaving");
        if (link !== undefined) return {};
        const { ended } = hub.store.current();
        // Nobody but the other side can name it.
        if (ended.some(({ id, isTold }) => id === linkId && !isTold))
          await hub.store.update((state) => endWasTold(state, linkId));
        throw new NsmError("NOT_FOUND", "not-linked", "no such link is known here");
      }),
    // The id of a link is known to its two sides alone: enough for one that is being made. One that stands ends by its proxy's word.
    "POST /leave": ({ body, chain }) =>
      answered(async () => {
        const { linkId } = read(LinkedBody, body);
        const link = hub.links().find(({ id, state }) => id === linkId && state !== "leaving");
        if (link?.state === "pending") await options.drop(link);
        else if (link !== undefined) {
          checkCaller(link, chain(), hub.clock.now());
          hub.log.info(
            { domain: link.domain },
            "the other side has removed the link while this one was away",
          );
          options.onUnlinked(link);
        }
        return {};
      }),
  };
}

async function join({ body, signal }: HttpQuestion, options: RedeemOptions): Promise<object> {
  const { hub, trust, drop, begin } = options;
  const { own, store, clock, log } = hub;
  const asked = read(JoinBody, body);
  const { token, domain, trustDomain, proxyId, linkId } = asked;
  try {
    checkToken(store.current(), token, clock.now());
    checkClocks(clock.now(), asked.timeMs);
    if (parseBundle(asked.bundle).certificates.length === 0)
      throw new NsmError("INVALID_ARGUMENT", "bad-bundle", "the bundle holds no certificate authority");
    const link: LinkRecord = {
      id: linkId,
      domain,
      trustDomain,
      proxyId,
      addresses: options.dialable(asked.addresses),
      dials: false,
      state: "pending",
      sinceMs: clock.now(),
      bundle: asked.bundle,
      gaveBundle: !trust.has(trustDomain),
    };
    let isMade = false;
    try {
      await store.update((state) => {
        const next = redeem(state, token, own, link, clock.now());
        isMade = true;
        return next;
      });
      hub.live(link.id).bundleHeardMs = clock.now();
      await begin(link);
      if (link.gaveBundle) await trust.set(trustDomain, asked.bundle, signal);
    } catch (error) {
      if (isMade) await drop(link);
      throw error;
    }
    log.info({ domain, peer: proxyId }, "domain joins with a token");
    return { timeMs: clock.now() };
  } catch (err) {
    // Who has no token may ask as often as he likes, and fills nobody's log.
    const isStranger = err instanceof NsmError && err.reason === "token-unknown";
    log[isStranger ? "debug" : "warn"]({ domain, peer: proxyId, err }, "join refused");
    throw err;
  }
}

/** Throws UNAUTHENTICATED with the verifier's reason, PERMISSION_DENIED `peer-refused`, unless it is the linked proxy by its last bundle. */
function checkCaller(link: LinkRecord, chain: readonly Uint8Array[], nowMs: number): void {
  const bundles = new Map([[link.trustDomain, parseBundle(link.bundle).certificates]]);
  const { id } = verifySvid(chain, bundles, nowMs);
  if (id === link.proxyId) return;
  throw new NsmError("PERMISSION_DENIED", "peer-refused", `${id} is not the proxy that this link is with`);
}

/** Throws INVALID_ARGUMENT `bad-request`. */
function read<T>(schema: z.ZodType<T>, body: string): T {
  try {
    return schema.parse(JSON.parse(body));
  } catch {
    // Without its cause, which may show a secret.
    throw new NsmError("INVALID_ARGUMENT", "bad-request", "the question is not what this proxy understands");
  }
}

async function answered(run: () => object | Promise<object>): Promise<HttpAnswer> {
  try {
    return { status: 200, body: JSON.stringify(await run()) };
  } catch (error) {
    if (!(error instanceof NsmError)) throw error;
    const { code, reason } = error;
    return { status: STATUS[code] ?? 409, body: JSON.stringify({ code, reason, message: messageOf(error) }) };
  }
}

const STATUS: Partial<Record<CodeName, number>> = {
  INVALID_ARGUMENT: 400,
  PERMISSION_DENIED: 403,
  NOT_FOUND: 404,
  UNAVAILABLE: 503,
};
