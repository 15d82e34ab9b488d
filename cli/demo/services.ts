/** Registers the network services of a scenario, as the operator of the run (`cli/demo/registrations.ts`). */
import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import { createBackoff } from "../../sdk/backoff.ts";
import { delay } from "../../sdk/clock.ts";
import { EMPTY_PATH } from "../../sdk/registry-path.ts";
import { identityUrl, managerUrl } from "./topology.ts";
import type { Topology } from "./topology.ts";

const CALL_WITHIN_MS = 5000;

/** Tries again while the daemons start, until the signal aborts; it rejects with what failed last. */
export async function registerServices(
  { folder }: Topology,
  services: readonly MessageInitShape<typeof NetworkServiceSchema>[],
  signal: AbortSignal,
): Promise<void> {
  if (services.length === 0) return;
  const { openMeshClient } = await import("../client.ts"); // all of gRPC, which other scenarios do without
  const env = { SPIFFE_ENDPOINT_SOCKET: identityUrl(folder), NSM_CONNECT_TO: managerUrl(folder, "node1") };
  const backoff = createBackoff();
  for (;;) {
    try {
      await using client = await openMeshClient({ manager: undefined, env, signal });
      for (const service of services)
        await client.manager.registries.services.register(create(NetworkServiceSchema, service), {
          signal: AbortSignal.any([signal, AbortSignal.timeout(CALL_WITHIN_MS)]),
          deadlineMs: Date.now() + CALL_WITHIN_MS,
          peer: undefined,
          registration: { path: EMPTY_PATH },
        });
      return;
    } catch (error) {
      await delay(backoff.next(), signal).catch(() => {
        throw error;
      });
    }
  }
}
