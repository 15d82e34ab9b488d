/** The Workload API as the authority serves it (SPIFFE standards "Workload Endpoint", §5, and "Workload API"). */
import { create } from "@bufbuild/protobuf";
import {
  JWTBundlesResponseSchema,
  JWTSVIDResponseSchema,
  ValidateJWTSVIDResponseSchema,
  X509BundlesResponseSchema,
  X509SVIDResponseSchema,
} from "../api/gen/workload_pb.js";
import type { SpiffeWorkloadAPI } from "../api/gen/workload_pb.js";
import type { Clock } from "../sdk/clock.ts";
import { NsmError, messageOf } from "../sdk/errors.ts";
import type { Handlers } from "../sdk/grpc/handlers.ts";
import type { PeerProcess } from "../sdk/grpc/peer.ts";
import type { Logger } from "../sdk/log.ts";
import { trustDomainId } from "../sdk/spiffe/id.ts";
import { verifyJwtSvid } from "../sdk/spiffe/jwt.ts";
import type { Authority } from "./authority.ts";
import type { Callers } from "./callers.ts";
import type { Svids } from "./svids.ts";
import type { Trust } from "./trust.ts";

export interface WorkloadApiParts {
  readonly authority: Authority;
  readonly callers: Callers;
  readonly svids: Svids;
  readonly trust: Trust;
  readonly clock: Clock;
  readonly log: Logger;
}

export function createWorkloadApi(parts: WorkloadApiParts): Handlers<typeof SpiffeWorkloadAPI, PeerProcess> {
  const { authority, callers, svids, trust, clock, log } = parts;
  const domain = trustDomainId(authority.trustDomain);

  return {
    async *fetchX509SVID(_, call) {
      yield* callers.follow(call, async (id) => {
        const svid = await svids.of(id);
        const view = trust.current();
        const message = () => {
          log.info({ peer: svid.id, pid: call.peer.pid }, "certificate sent");
          const { id: spiffeId, certificate: x509Svid, privateKey: x509SvidKey } = svid;
          return create(X509SVIDResponseSchema, {
            svids: [{ spiffeId, x509Svid, x509SvidKey, bundle: view.ownCertificates }],
            federatedBundles: view.federatedCertificates,
          });
        };
        return { message, parts: [svid, view], untilMs: svid.renewAtMs };
      });
    },
    async *fetchX509Bundles(_, call) {
      yield* callers.follow(call, () => {
        const view = trust.current();
        const bundles = { ...view.federatedCertificates, [domain]: view.ownCertificates };
        const message = () => create(X509BundlesResponseSchema, { bundles });
        return Promise.resolve({ message, parts: [view], untilMs: Infinity });
      });
    },
    async *fetchJWTBundles(_, call) {
      yield* callers.follow(call, () => {
        const view = trust.current();
        const message = () => create(JWTBundlesResponseSchema, { bundles: view.jwtSets });
        return Promise.resolve({ message, parts: [view], untilMs: Infinity });
      });
    },
    async fetchJWTSVID({ audience, spiffeId }, call) {
      const id = await callers.identify(call);
      if (audience.length === 0 || audience.includes(""))
        throw new NsmError("INVALID_ARGUMENT", "no-audience", "a JWT-SVID needs an audience");
      if (spiffeId !== "" && spiffeId !== id)
        throw new NsmError("PERMISSION_DENIED", "not-registered", `this process is ${id}, not ${spiffeId}`);
      const svid = await authority.issueJwt(id, audience);
      return create(JWTSVIDResponseSchema, { svids: [{ spiffeId: id, svid }] });
    },
    async validateJWTSVID({ audience, svid }, call) {
      await callers.identify(call);
      if (audience === "")
        throw new NsmError("INVALID_ARGUMENT", "no-audience", "name the audience to validate for");
      try {
        const { jwtBundles } = trust.current();
        const { id, claims } = await verifyJwtSvid(svid, jwtBundles, audience, clock.now());
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
