/**
 * The authority of one trust domain: the keys that sign now, those that will, and those whose signatures are still valid; all of
 * them are published (docs/identity.md, "Keys that change"). Every change is on disk before it is in force.
 */
import { createHash } from "node:crypto";
import type { Clock } from "../sdk/clock.ts";
import { NsmError } from "../sdk/errors.ts";
import type { Logger } from "../sdk/log.ts";
import { oneAtATime } from "../sdk/one-at-a-time.ts";
import { formatBundle } from "../sdk/spiffe/bundle.ts";
import type { Bundle } from "../sdk/spiffe/bundle.ts";
import type { Changing } from "./callers.ts";
import { TELL_MS, inOrder, leadMsOf, planOf, signingOf, waitingOf } from "./generations.ts";
import type { Generation, Timing } from "./generations.ts";
import { createJwtIssuer, createX509Issuer, idOf, makeCa, makeJwtKey } from "./issuer.ts";
import type { IssuedSvid, JwtIssuer, X509Issuer } from "./issuer.ts";
import { generationOf } from "./state.ts";
import type { StateFile, StoredKeys } from "./state.ts";
import type { Upstream } from "./upstream.ts";

const LONGEST_JWT_LIFE_MS = 5 * 60_000;
/** Each is published, and whoever reads bundles takes only so many. */
const MAX_GENERATIONS = 8;
const RETRY_MS = 10_000;
/** From the publication of an unprepared successor to the end of what was withdrawn. */
const WITHDRAW_MS = TELL_MS / 2;

/** One generation of keys, for people. */
export interface KeysInfo {
  /** Of its certificate, or of its JWT key when it has none. */
  readonly id: string;
  readonly state: "next" | "signing" | "old";
  readonly signsFromMs: number;
  readonly notAfterMs: number;
}

export interface Authority extends Changing, AsyncDisposable {
  readonly trustDomain: string;
  /** What verifies our SVIDs; the same object until it changes. */
  bundle(): Bundle;
  issueX509(id: string, lifetimeMs: number): Promise<IssuedSvid>;
  /** Valid for five minutes, or for the life of a certificate when that is shorter. */
  issueJwt(id: string, audience: readonly string[]): Promise<string>;
  /** False for an issuer that was withdrawn or replaced: what it signed is to be signed anew. */
  isIssuer(id: string): boolean;
  keys(): readonly KeysInfo[];
  /**
   * Makes the next keys, if there are none yet, and has them sign as soon as everybody knows them, or `atOnce`, a second later (other
   * domains then refuse what they sign until they have asked). Throws RESOURCE_EXHAUSTED `too-many-keys`.
   */
  rotate(atOnce: boolean): Promise<void>;
  /** Ends the trust in keys within a second, whatever they have signed; signs it anew. Throws NOT_FOUND `no-such-keys`. */
  withdraw(id: string): Promise<void>;
}

export interface AuthorityOptions {
  readonly state: StateFile;
  readonly timing: Timing;
  /** Who signs certificates in our place; then we hold keys for JWTs only. */
  readonly upstream: Upstream | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Member extends Generation {
  readonly id: string;
  readonly stored: StoredKeys;
  readonly x509: X509Issuer | undefined;
  readonly jwt: JwtIssuer;
}

/** Has keys that sign when it resolves. Throws FAILED_PRECONDITION `bad-state`, `bad-authority`. */
export async function openAuthority(options: AuthorityOptions): Promise<Authority> {
  const { state, timing, upstream, clock, log } = options;
  const { trustDomain } = state.current;
  const jwtLifeMs = Math.min(LONGEST_JWT_LIFE_MS, timing.svidLifetimeMs);
  const listeners = new Set<() => void>();
  const inTurn = oneAtATime();
  let members: readonly Member[] = await Promise.all(state.current.keys.map(memberOf));
  let bundle: Bundle | undefined;
  let timer: Disposable | undefined;
  let isClosed = false;

  const make = async (nowMs: number, signsFromMs: number): Promise<Member> => {
    const ca = upstream === undefined ? await makeCa(trustDomain, nowMs, timing.caLifetimeMs) : undefined;
    const jwtKey = await makeJwtKey();
    const { svidLifetimeMs: longestLifeMs } = timing;
    const next = await memberOf({ ...(ca && { ca }), jwtKey, madeMs: nowMs, signsFromMs, longestLifeMs });
    log.info({ authority: next.id, signsFrom: new Date(signsFromMs).toISOString() }, "new keys published");
    return next;
  };

  /** Puts these in force, and on disk before. */
  const replace = async (unordered: readonly Member[]) => {
    const next = inOrder(unordered);
    const content = {
      certificates: [
        ...next.flatMap(({ x509 }) => x509?.certificate ?? []),
        ...(upstream?.current().roots ?? []),
      ],
      jwtKeys: next.map(({ jwt }) => jwt.jwk),
      refreshHintSeconds: Math.round(timing.refreshHintMs / 1000),
    };
    const published = digestOf({ ...content, sequence: undefined });
    const isNew = published !== state.current.published;
    const sequence = isNew
      ? nextSequence(BigInt(state.current.sequence), clock)
      : BigInt(state.current.sequence);
    const keys = next.map(({ stored }) => stored);
    if (isNew || JSON.stringify(keys) !== JSON.stringify(state.current.keys))
      await state.save({ ...state.current, sequence: String(sequence), published, keys });
    members = next;
    if (bundle === undefined || isNew) bundle = { ...content, sequence };
    for (const listener of listeners) listener();
  };

  /** What has to happen now, and when the next thing has to. */
  const step = async () => {
    const nowMs = clock.now();
    // Keys that wait to sign and are of the other kind (a CA of our own, or one above us) are of no use any more.
    const useless = waitingOf(members, nowMs).filter((each) => !isOfOurKind(each));
    const useful = members.filter((each) => !useless.includes(each));
    const { keep, nextSignsFromMs } = planOf(useful, nowMs, timing);
    const signing = signingOf(keep, nowMs);
    const from = signing === undefined || isOfOurKind(signing) ? nextSignsFromMs : nowMs;
    const next = keep.map((each) => (each === signing ? withLife(each, timing.svidLifetimeMs) : each));
    if (from !== undefined) next.push(await make(nowMs, from));
    const gone = members.filter(({ id }) => !next.some((each) => each.id === id));
    for (const { id } of gone) log.info({ authority: id }, "keys removed, nothing that they signed is valid");
    if (bundle === undefined || gone.length > 0 || next.some((each, i) => each !== members[i]))
      await replace(next);
  };
  const isOfOurKind = ({ x509 }: Member) => (x509 === undefined) === (upstream !== undefined);

  const arm = (afterMs: number) => {
    timer?.[Symbol.dispose]();
    if (!isClosed) timer = clock.timer(afterMs, () => void inTurn(advance));
  };
  const advance = async () => {
    if (isClosed) return;
    try {
      await step();
      const nowMs = clock.now();
      arm(Math.max(10, planOf(members, nowMs, timing).againMs - nowMs));
    } catch (err) {
      log.error({ err }, "keys cannot be renewed, trying again");
      arm(RETRY_MS);
    }
  };
  /** One after the other, and what follows from it is planned anew. */
  const change = (work: () => Promise<void>) =>
    inTurn(async () => {
      try {
        await work();
      } finally {
        await advance();
      }
    });

  await inTurn(step);
  await inTurn(advance);
  const watching = upstream?.onChange(() => void change(() => replace(members)).catch(() => undefined));

  const signingNow = (): Member => {
    const signing = signingOf(members, clock.now());
    if (signing === undefined) throw new NsmError("INTERNAL", "no-keys", "the authority has no keys");
    return signing;
  };
  return {
    trustDomain,
    bundle() {
      if (bundle === undefined) throw new NsmError("INTERNAL", "no-keys", "the authority has no keys");
      return bundle;
    },
    onChange(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    issueX509: async (id, lifetimeMs) => {
      const issuer = upstream?.current().issuer ?? signingNow().x509;
      if (issuer === undefined) throw new NsmError("UNAVAILABLE", "no-keys", "there is no CA yet");
      return await issuer.issue(id, clock.now(), lifetimeMs);
    },
    issueJwt: (id, audience) => signingNow().jwt.issue(id, audience, clock.now(), jwtLifeMs),
    isIssuer: (id) => upstream?.current().issuer.id === id || members.some(({ x509 }) => x509?.id === id),
    keys: () => {
      const signing = signingNow();
      return members.map((each) => ({
        id: each.id,
        state: each === signing ? "signing" : each.signsFromMs > signing.signsFromMs ? "next" : "old",
        signsFromMs: each.signsFromMs,
        notAfterMs: each.notAfterMs,
      }));
    },
    rotate: (atOnce) =>
      change(async () => {
        const nowMs = clock.now();
        const fromMs = nowMs + (atOnce ? TELL_MS : leadMsOf(timing));
        const [next] = waitingOf(members, nowMs);
        if (next !== undefined) {
          const sooner = signingFrom(next, Math.min(next.signsFromMs, fromMs));
          await replace(members.map((each) => (each === next ? sooner : each)));
          return;
        }
        if (members.length >= MAX_GENERATIONS)
          throw new NsmError(
            "RESOURCE_EXHAUSTED",
            "too-many-keys",
            `${members.length} generations of keys are published already: wait until the oldest has signed nothing that is valid, or withdraw one`,
          );
        await replace([...members, await make(nowMs, fromMs)]);
      }),
    withdraw: (id) =>
      change(async () => {
        const target = members.find((each) => each.id === id);
        if (target === undefined) throw noSuchKeys(id, members);
        if (target === signingNow()) {
          const nowMs = clock.now();
          const [successor] = waitingOf(members, nowMs);
          const others = members.filter((each) => each !== successor);
          await replace([...others, successor ?? (await make(nowMs, nowMs + TELL_MS))]);
          if (successor === undefined) await passed(WITHDRAW_MS, clock);
        }
        const nowMs = clock.now();
        const left = members.filter((each) => each !== target);
        const first = signingOf(left, nowMs);
        await replace(
          left.map((each) => (each === first && each.signsFromMs > nowMs ? signingFrom(each, nowMs) : each)),
        );
        log.warn({ authority: id }, "keys withdrawn");
      }),
    async [Symbol.asyncDispose]() {
      isClosed = true;
      watching?.[Symbol.dispose]();
      timer?.[Symbol.dispose]();
      await inTurn(() => Promise.resolve());
    },
  };
}

async function memberOf(stored: StoredKeys): Promise<Member> {
  const [x509, jwt] = await Promise.all([
    stored.ca === undefined ? undefined : createX509Issuer(stored.ca),
    createJwtIssuer(stored.jwtKey),
  ]);
  return { ...generationOf(stored), id: x509?.id ?? idOf(Buffer.from(jwt.jwk.kid)), stored, x509, jwt };
}

function signingFrom(member: Member, signsFromMs: number): Member {
  return { ...member, signsFromMs, stored: { ...member.stored, signsFromMs } };
}

/** Certificates that lived longer before a restart still count. */
function withLife(member: Member, lifeMs: number): Member {
  if (member.longestLifeMs >= lifeMs) return member;
  return { ...member, longestLifeMs: lifeMs, stored: { ...member.stored, longestLifeMs: lifeMs } };
}

function digestOf(bundle: Bundle): string {
  return createHash("sha256").update(formatBundle(bundle)).digest("hex");
}

/** Never smaller than the seconds since 1970: an authority that was made anew is not taken for an old one. */
function nextSequence(last: bigint, clock: Clock): bigint {
  const seconds = BigInt(Math.floor(clock.now() / 1000));
  return seconds > last ? seconds : last + 1n;
}

function passed(delayMs: number, clock: Clock): Promise<void> {
  return new Promise((resolve) => clock.timer(delayMs, resolve));
}

function noSuchKeys(id: string, members: readonly Member[]): NsmError {
  const known = members.map((each) => each.id).join(", ");
  return new NsmError(
    "NOT_FOUND",
    "no-such-keys",
    `there are no keys ${JSON.stringify(id)} here, only ${known}`,
  );
}
