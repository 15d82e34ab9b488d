/** The built-in SPIFFE authority: keys on disk, registrations in a file, the Workload API on a unix socket (docs/identity.md). */
import { SpiffeWorkloadAPI } from "../api/gen/workload_pb.js";
import { systemClock } from "../sdk/clock.ts";
import type { Clock } from "../sdk/clock.ts";
import { defineDaemon } from "../sdk/daemon.ts";
import type { Runtime } from "../sdk/daemon.ts";
import { openPlainServer } from "../sdk/grpc/plain.ts";
import { createAuthority, createAuthorityState } from "./authority.ts";
import { table } from "./config.ts";
import type { IdentityConfig } from "./config.ts";
import { openRegistrations } from "./registrations-file.ts";
import { loadState } from "./state.ts";
import { createSvids } from "./svids.ts";
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
  stack.use(
    registrations.onChange(() => svids.keepOnly(new Set(registrations.current().map(({ id }) => id)))),
  );
  stack.use(
    await openPlainServer({
      path: listenOn,
      mode: SOCKET_MODE,
      service: SpiffeWorkloadAPI,
      handlers: createWorkloadApi({ authority, registrations, svids, clock, log }),
      log,
    }),
  );
  log.info(
    { trustDomain, socket: listenOn, registrations: registrations.current().length },
    "identity serves",
  );
  return stack.move();
}
