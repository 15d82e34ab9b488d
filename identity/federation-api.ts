/** The service by which the proxy of this domain says which other trust domains are trusted (docs/identity.md, "Federation"). */
import { create } from "@bufbuild/protobuf";
import {
  BundleSchema,
  ListBundlesResponseSchema,
  RemoveBundleResponseSchema,
  SetBundleResponseSchema,
} from "../api/gen/federation_pb.js";
import type { Federation } from "../api/gen/federation_pb.js";
import { NsmError } from "../sdk/errors.ts";
import type { Caller as Call } from "../sdk/grpc/caller.ts";
import type { Handlers } from "../sdk/grpc/handlers.ts";
import type { PeerProcess } from "../sdk/grpc/peer.ts";
import type { Logger } from "../sdk/log.ts";
import { formatBundle } from "../sdk/spiffe/bundle.ts";
import type { Callers } from "./callers.ts";
import type { Federated } from "./federated.ts";
import type { Trust } from "./trust.ts";

export interface FederationApiParts {
  readonly trustDomain: string;
  readonly callers: Callers;
  readonly trust: Trust;
  readonly federated: Federated;
  /** Whose calls are answered. */
  readonly isAllowed: (spiffeId: string) => boolean;
  readonly log: Logger;
}

export function createFederationApi(parts: FederationApiParts): Handlers<typeof Federation, PeerProcess> {
  const { trustDomain, callers, trust, federated, log } = parts;
  const checkAllowed = (id: string) => {
    if (parts.isAllowed(id)) return;
    const text = `${id} may not decide which trust domains are trusted here (NSM_IDENTITY_FEDERATION_IDS)`;
    throw new NsmError("PERMISSION_DENIED", "not-federation", text);
  };
  const authorize = async (call: Call<PeerProcess>) => checkAllowed(await callers.identify(call));
  return {
    async *watchBundle(_, call) {
      yield* callers.follow(call, (id) => {
        checkAllowed(id);
        const { own } = trust.current();
        const message = () => create(BundleSchema, { trustDomain, document: Buffer.from(formatBundle(own)) });
        return Promise.resolve({ message, parts: [own], untilMs: Infinity });
      });
    },
    async setBundle({ bundle }, call) {
      await authorize(call);
      if (bundle === undefined)
        throw new NsmError("INVALID_ARGUMENT", "no-bundle", "there is no bundle to set");
      const { trustDomain: domain, document } = bundle;
      try {
        await federated.set(domain, document, "socket");
      } catch (err) {
        if (err instanceof NsmError && err.reason === "sequence-backwards")
          log.error({ err, trustDomain: domain }, "an old bundle of another trust domain is refused");
        throw err;
      }
      return create(SetBundleResponseSchema);
    },
    async removeBundle(request, call) {
      await authorize(call);
      await federated.remove(request.trustDomain, "socket");
      return create(RemoveBundleResponseSchema);
    },
    async listBundles(_, call) {
      await authorize(call);
      const bundles = [...federated.current()].map(([name, bundle]) =>
        create(BundleSchema, { trustDomain: name, document: Buffer.from(formatBundle(bundle)) }),
      );
      return create(ListBundlesResponseSchema, { bundles });
    },
  };
}
