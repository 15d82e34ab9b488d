/**
 * The Workload API as the authority serves it (SPIFFE standards "Workload Endpoint", §5, and "Workload API").
 *
 * A stream is a loop: look at the caller, answer with what it may have now, wait until that may have changed. So a renewed
 * certificate, an edited registration and a caller that moved to another cgroup all take the same way.
 */
import { create } from "@bufbuild/protobuf";
import {
  JWTBundlesResponseSchema,
  JWTSVIDResponseSchema,
  ValidateJWTSVIDResponseSchema,
  X509BundlesResponseSchema,
  X509SVIDResponseSchema,
} from "../api/gen/workload_pb.js";
import type { SpiffeWorkloadAPI } from "../api/gen/workload_pb.js";
import { delay } from "../sdk/clock.ts";
import type { Clock } from "../sdk/clock.ts";
import { NsmError, messageOf } from "../sdk/errors.ts";
import type { Caller as Call } from "../sdk/grpc/caller.ts";
import type { Handlers } from "../sdk/grpc/handlers.ts";
import type { PeerProcess } from "../sdk/grpc/peer.ts";
import type { Logger } from "../sdk/log.ts";
import { LruMap } from "../sdk/lru.ts";
import { trustDomainId } from "../sdk/spiffe/id.ts";
import { verifyJwtSvid } from "../sdk/spiffe/jwt.ts";
import { findRegistration, readCaller } from "./attest.ts";
import type { Caller } from "./attest.ts";
import type { Authority } from "./authority.ts";
import type { Registrations } from "./registrations-file.ts";
import type { Svids } from "./svids.ts";

const LEAST_PAUSE_MS = 10;
const MAX_KINDS_OF_CALLERS = 1024;
/** How often, and at what distance, a caller is looked at before it is refused. */
const LOOKS = 4;
const LOOK_PAUSE_MS = 20;

export interface WorkloadApiParts {
  readonly authority: Authority;
  readonly registrations: Registrations;
  readonly svids: Svids;
  readonly clock: Clock;
  readonly log: Logger;
}

export function createWorkloadApi(parts: WorkloadApiParts): Handlers<typeof SpiffeWorkloadAPI, PeerProcess> {
  const { authority, registrations, svids, clock, log } = parts;
  const refusals = createRefusalLog(log);
  const domain = trustDomainId(authority.trustDomain);
  const jwtBundle = Buffer.from(
    JSON.stringify({ keys: authority.jwtKeys.map((key) => ({ ...key, use: "jwt-svid" })) }),
  );
  const bundles = new Map([[authority.trustDomain, authority.jwtKeys]]);

  // A forwarder enters the namespaces of pods for microseconds and may be looked at in such a moment: one look is no proof.
  const identify = async (call: Call<PeerProcess>): Promise<string> => {
    checkMetadata(call);
    for (let looks = 1; ; looks++) {
      const caller = readCaller(call.peer);
      try {
        return findRegistration(caller, registrations.current(), registrations.path).id;
      } catch (err) {
        if (looks < LOOKS) {
          await delay(LOOK_PAUSE_MS);
          continue;
        }
        refusals.log(caller, err);
        throw err;
      }
    }
  };
  /** Yields `answer` of the caller's identity again after each change that may concern it, unless it is the same. */
  async function* follow<T extends { readonly key: unknown; readonly untilMs: number }>(
    call: Call<PeerProcess>,
    answer: (id: string) => Promise<T>,
  ): AsyncGenerator<T> {
    let last: unknown;
    while (!call.signal.aborted) {
      // Listening begins before the look, or a change in between would be missed.
      using change = watchForChange(registrations, call.signal);
      const current = await answer(await identify(call));
      if (current.key !== last) yield current;
      last = current.key;
      await change.orAt(current.untilMs, clock);
    }
  }

  return {
    async *fetchX509SVID(_, call) {
      const stream = follow(call, async (id) => {
        const svid = await svids.of(id);
        return { key: svid, untilMs: svid.renewAtMs };
      });
      for await (const { key: svid } of stream) {
        log.info({ peer: svid.id, pid: call.peer.pid }, "certificate sent");
        yield create(X509SVIDResponseSchema, {
          svids: [
            {
              spiffeId: svid.id,
              x509Svid: svid.certificate,
              x509SvidKey: svid.privateKey,
              bundle: authority.certificate,
            },
          ],
        });
      }
    },
    async *fetchX509Bundles(_, call) {
      const message = create(X509BundlesResponseSchema, { bundles: { [domain]: authority.certificate } });
      const stream = follow(call, () => Promise.resolve({ key: message, untilMs: Infinity }));
      for await (const { key } of stream) yield key;
    },
    async *fetchJWTBundles(_, call) {
      const message = create(JWTBundlesResponseSchema, { bundles: { [domain]: jwtBundle } });
      const stream = follow(call, () => Promise.resolve({ key: message, untilMs: Infinity }));
      for await (const { key } of stream) yield key;
    },
    async fetchJWTSVID({ audience, spiffeId }, call) {
      const id = await identify(call);
      if (audience.length === 0 || audience.includes(""))
        throw new NsmError("INVALID_ARGUMENT", "no-audience", "a JWT-SVID needs an audience");
      if (spiffeId !== "" && spiffeId !== id)
        throw new NsmError("PERMISSION_DENIED", "not-registered", `this process is ${id}, not ${spiffeId}`);
      const svid = await authority.issueJwt(id, audience, clock.now());
      return create(JWTSVIDResponseSchema, { svids: [{ spiffeId: id, svid }] });
    },
    async validateJWTSVID({ audience, svid }, call) {
      await identify(call);
      if (audience === "")
        throw new NsmError("INVALID_ARGUMENT", "no-audience", "name the audience to validate for");
      try {
        const { id, claims } = await verifyJwtSvid(svid, bundles, audience, clock.now());
        return create(ValidateJWTSVIDResponseSchema, {
          spiffeId: id,
          claims: { sub: id, aud: claims.aud ?? "", exp: claims.exp ?? 0 },
        });
      } catch (error) {
        if (!(error instanceof NsmError)) throw error;
        throw new NsmError("INVALID_ARGUMENT", error.reason, messageOf(error), error);
      }
    },
  };
}

/** Proof that the caller is a program that means this API, not a browser or proxy that was made to ask. */
function checkMetadata({ metadata }: Call<PeerProcess>): void {
  const values = metadata.get("workload.spiffe.io");
  if (values.length !== 1 || values[0] !== "true")
    throw new NsmError(
      "INVALID_ARGUMENT",
      "no-security-header",
      "metadata workload.spiffe.io: true is required",
    );
}

/** Each kind of caller is logged once, however often it asks: what a refused process does must not fill the log. */
function createRefusalLog(log: Logger) {
  const logged = new LruMap<string, true>(MAX_KINDS_OF_CALLERS);
  return {
    log({ uid, gid, netns, cgroup }: Caller, err: unknown): void {
      const kind = [uid, gid, netns?.ino, cgroup].join();
      if (logged.get(kind) === undefined) log.warn({ err }, "caller refused");
      logged.set(kind, true);
    },
  };
}

interface Change extends Disposable {
  /** Resolves at the first change since this was made, at `atMs` (1970), or when the call is over. */
  orAt(atMs: number, clock: Clock): Promise<void>;
}

function watchForChange(registrations: Registrations, signal: AbortSignal): Change {
  const { promise, resolve } = Promise.withResolvers<void>();
  const listener = registrations.onChange(resolve);
  const onAbort = () => resolve();
  signal.addEventListener("abort", onAbort, { once: true });
  return {
    async orAt(atMs, clock) {
      // Timers may fire a little early; without a least pause the loop would spin until it is really time.
      using _ = clock.timer(Math.max(atMs - clock.now(), LEAST_PAUSE_MS), resolve);
      await promise;
    },
    [Symbol.dispose]() {
      listener[Symbol.dispose]();
      signal.removeEventListener("abort", onAbort);
    },
  };
}
