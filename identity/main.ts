/** The built-in SPIFFE authority: keys on disk, registrations in a file, the Workload API on a unix socket (docs/identity.md). */
import { join } from "node:path";
import { Authority as AuthorityService } from "../api/gen/authority_pb.js";
import { Federation } from "../api/gen/federation_pb.js";
import { SpiffeWorkloadAPI } from "../api/gen/workload_pb.js";
import { systemClock } from "../sdk/clock.ts";
import type { Clock } from "../sdk/clock.ts";
import { defineDaemon } from "../sdk/daemon.ts";
import type { Runtime } from "../sdk/daemon.ts";
import { NsmError } from "../sdk/errors.ts";
import { openPlainServer } from "../sdk/grpc/plain.ts";
import { idMatcher } from "../sdk/peer-ids.ts";
import { trustDomainId } from "../sdk/spiffe/id.ts";
import { createAuthorityApi } from "./authority-api.ts";
import { openAuthority } from "./authority.ts";
import type { Authority } from "./authority.ts";
import { openBundleServer } from "./bundle-server.ts";
import { createCallers } from "./callers.ts";
import { checkConfig, table, upstreamFilesOf } from "./config.ts";
import type { IdentityConfig } from "./config.ts";
import { openFederated } from "./federated.ts";
import { createFederationApi } from "./federation-api.ts";
import { openFederationFile } from "./federation-file.ts";
import { openRegistrations } from "./registrations-file.ts";
import { preparePrivateDirectory } from "../sdk/private-file.ts";
import { openState } from "./state.ts";
import { createSvids } from "./svids.ts";
import { createTrust } from "./trust.ts";
import { openUpstream } from "./upstream.ts";
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
  check: checkConfig,
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
  const { trustDomain, stateDir, listenOn } = config;
  await using stack = new AsyncDisposableStack();
  const registrations = stack.use(
    await openRegistrations({ path: config.registrations, trustDomain, log, clock }),
  );
  await preparePrivateDirectory(stateDir, "NSM_IDENTITY_STATE_DIR");
  const ready = Promise.withResolvers<Authority>();
  ready.promise.catch(() => undefined);
  // Before the keys are read: while somebody listens there, they are in use.
  const adminSocket = { path: join(stateDir, "authority.sock"), mode: 0o600, log };
  stack.use(
    await openPlainServer(adminSocket, (add) =>
      add(
        AuthorityService,
        createAuthorityApi(() => ready.promise),
      ),
    ),
  );
  stack.defer(() => ready.reject(new NsmError("UNAVAILABLE", "draining", "the authority stops")));
  const state = await openState(stateDir, trustDomain);
  const files = upstreamFilesOf(config);
  const upstream = files && stack.use(await openUpstream({ files, trustDomain, log, clock }));
  const authority = stack.use(await openAuthority({ state, timing: config, upstream, clock, log }));
  ready.resolve(authority);
  const svids = createSvids(authority, config, clock);
  const federated = await openFederated(stateDir, trustDomain, log);
  const trust = createTrust(authority, federated);
  const callers = createCallers({ registrations, changing: [trust], clock, log });
  const isAllowed = idMatcher(config.federationIds, trustDomain);
  stack.use(await openFederationFile({ path: config.federation, trustDomain, federated, trust, log, clock }));
  const id = `${trustDomainId(trustDomain)}/identity`;
  if (config.bundleListenOn !== undefined)
    stack.use(await openBundleServer({ listenOn: config.bundleListenOn, id, svids, trust, log, clock }));
  stack.use(
    registrations.onChange(() => svids.keepOnly(new Set(registrations.current().map(({ id }) => id)))),
  );
  stack.use(
    await openPlainServer({ path: listenOn, mode: SOCKET_MODE, log }, (add) => {
      add(SpiffeWorkloadAPI, createWorkloadApi({ authority, callers, svids, trust, clock, log }));
      add(Federation, createFederationApi({ trustDomain, callers, trust, federated, isAllowed, log }));
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
