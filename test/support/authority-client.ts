/** The operator's hand at an authority of a test. */
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { Authority } from "../../api/gen/authority_pb.js";
import type { ListKeysResponse } from "../../api/gen/authority_pb.js";
import { createPlainClient } from "../../sdk/grpc/plain.ts";

const { listKeys, rotateKeys, withdrawKeys } = Authority.method;
const settings = { metadata: {}, signal: undefined, deadlineMs: undefined, onReplaced: undefined };

/** What the authority with its state in that directory says of its keys, and does with them. */
export function authorityIn(stateDir: string) {
  const path = join(stateDir, "authority.sock");
  const called = async <T>(
    call: (client: ReturnType<typeof createPlainClient>) => Promise<{ response: T }>,
  ) => {
    using client = createPlainClient({ kind: "unix", path });
    return (await call(client)).response;
  };
  return {
    list: (): Promise<ListKeysResponse> =>
      called(({ calls }) => calls.unary(listKeys, create(listKeys.input), settings)),
    rotate: (atOnce: boolean): Promise<ListKeysResponse> =>
      called(({ calls }) => calls.unary(rotateKeys, create(rotateKeys.input, { atOnce }), settings)),
    withdraw: (id: string): Promise<ListKeysResponse> =>
      called(({ calls }) => calls.unary(withdrawKeys, create(withdrawKeys.input, { id }), settings)),
  };
}
