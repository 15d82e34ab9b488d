/** The built-in SPIFFE authority: keys on disk, registrations in a file, the Workload API on a unix socket (docs/identity.md). */
import { Federation } from "../api/gen/federation_pb.js";
import { SpiffeWorkloadAPI } from "../api/gen/workload_pb.js";
import { systemClock } from "../sdk/clock.ts";
import type { Clock } from "../sdk/clock.ts";
import { defineDaemon } from "../sdk/daemon.ts";
import type { Runtime } from "../sdk/daemon.ts";
import { openPlainServer } from "../sdk/grpc/plain.ts";
import { idMatcher } from "../sdk/peer-ids.ts";
import { createAuthority, createAuthorityState } from "./authority.ts";
import { createCallers } from "./callers.ts";
import { table } from "./config.ts";
import type { IdentityConfig } from "./config.ts";
import { openFederated } from "./federated.ts";
import { createFederationApi } from "./federation-api.ts";
import { openRegistrations } from "./registrations-file.ts";
import { loadState } from "./state.ts";
import { createSvids } from "./svids.ts";
import { createTrust } from "./trust.ts";
import { createWorkloadApi } from "./workload-api.ts";

/** Anybody may connect: who the caller is decides, not whether it may open the socket. */
const SOCKET_MODE = 0o666;

export const daemon = defineDaemon({
  name: "identity",
  summary: "built-in SPIFFE authority with a Workload API",
  about:
    "Gives every process of this machine that has a registration its SPIFFE identity: short-lived certificates, renewed " +
    "by themselves. Callers are told apart by user, group, network namespace, cgroup and executable, as the kernel knows them. " +
    "SPIRE can take its place: point SPIFFE_ENDPOINT_SOCKET of the others at its agent.",
  table,
  async open(config, { log }, stack) {
    stack.use(await openIdentity(config, log));
  },
});

/** Serves when it resolves. Disposing ends all streams and removes the socket; the keys stay. */
export async function openIdentity(
  config: IdentityConfig,
  log: Runtime["log"],
  clock: Clock = systemClock,
): Promise<AsyncDisposable> {
  const { trustDomain, stateDir, listenOn, svidLifetimeMs } = config;
  await using stack = new AsyncDisposableStack();
  const registrations = stack.use(
    await openRegistrations({ path: config.registrations, trustDomain, log, clock }),
  );
  const state = await loadState(stateDir, trustDomain, () => createAuthorityState(trustDomain, clock.now()));
  const authority = await createAuthority(state);
  const svids = createSvids(authority, svidLifetimeMs, clock);
  const federated = await openFederated(stateDir, trustDomain, log);
  const trust = createTrust(authority, federated);
  const callers = createCallers({ registrations, changing: [trust], clock, log });
  const isAllowed = idMatcher(config.federationIds, trustDomain);
  stack.use(
    registrations.onChange(() => svids.keepOnly(new Set(registrations.current().map(({ id }) => id)))),
  );
  stack.use(
    await openPlainServer({ path: listenOn, mode: SOCKET_MODE, log }, (add) => {
      add(SpiffeWorkloadAPI, createWorkloadApi({ authority, callers, svids, trust, clock, log }));
      add(Federation, createFederationApi({ trustDomain, callers, trust, federated, isAllowed }));
    }),
  );
  log.info(
    {
      trustDomain,
      socket: listenOn,
      registrations: registrations.current().length,
      federated: federated.current().size,
    },
    "identity serves",
  );
  return stack.move();
}
