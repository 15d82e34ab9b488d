/** The service by which the operator looks at the authority's keys and changes them (docs/identity.md, "Keys that change"). */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { KeysSchema, ListKeysResponseSchema } from "../api/gen/authority_pb.js";
import type { Authority as AuthorityService } from "../api/gen/authority_pb.js";
import type { Handlers } from "../sdk/grpc/handlers.ts";
import type { PeerProcess } from "../sdk/grpc/peer.ts";
import { formatBundle } from "../sdk/spiffe/bundle.ts";
import type { Authority } from "./authority.ts";

/** Who may call is said by the socket's directory: whoever can open it can read the keys, too. */
export function createAuthorityApi(
  authority: () => Promise<Authority>,
): Handlers<typeof AuthorityService, PeerProcess> {
  return {
    listKeys: async () => answerOf(await authority()),
    async rotateKeys({ atOnce }) {
      const it = await authority();
      await it.rotate(atOnce);
      return answerOf(it);
    },
    async withdrawKeys({ id }) {
      const it = await authority();
      await it.withdraw(id);
      return answerOf(it);
    },
  };
}

function answerOf(authority: Authority) {
  return create(ListKeysResponseSchema, {
    trustDomain: authority.trustDomain,
    keys: authority.keys().map(({ id, state, signsFromMs, notAfterMs }) =>
      create(KeysSchema, {
        id,
        state,
        signsFrom: timestampFromMs(signsFromMs),
        ...(Number.isFinite(notAfterMs) && { notAfter: timestampFromMs(notAfterMs) }),
      }),
    ),
    document: Buffer.from(formatBundle(authority.bundle())),
  });
}
