/**
 * A process that is to the mesh what an agent of SPIRE is, as far as the mesh can see: the Workload API and nothing else on the socket.
 * The keys, and who gets which identity, are those of the built-in authority, with its environment; whom else to trust is in the file
 * `operator.json` of the state directory (trust domain → bundle document), which the test writes as the operators of SPIRE servers
 * federate them. As with `federatesWith` in entries, proxies alone are told.
 */
import { join } from "node:path";
import { Authority as AuthorityService } from "../../api/gen/authority_pb.js";
import { SpiffeWorkloadAPI } from "../../api/gen/workload_pb.js";
import { runDaemon } from "../../cli/run-daemon.ts";
import { createAuthorityApi } from "../../identity/authority-api.ts";
import { openAuthority } from "../../identity/authority.ts";
import { createCallers } from "../../identity/callers.ts";
import { table } from "../../identity/config.ts";
import { openFederated } from "../../identity/federated.ts";
import { openRegistrations } from "../../identity/registrations-file.ts";
import { openState } from "../../identity/state.ts";
import { createSvids } from "../../identity/svids.ts";
import { createTrust } from "../../identity/trust.ts";
import { createWorkloadApi } from "../../identity/workload-api.ts";
import { systemClock as clock } from "../../sdk/clock.ts";
import { defineDaemon } from "../../sdk/daemon.ts";
import { openPlainServer } from "../../sdk/grpc/plain.ts";
import { preparePrivateDirectory } from "../../sdk/private-file.ts";
import { openWatchedFile } from "../../sdk/watched-file.ts";

const daemon = defineDaemon({
  name: "identity",
  summary: "stands in for an agent of SPIRE",
  about: "",
  table,
  async open(config, { log }, stack) {
    const { trustDomain, stateDir, registrations: path } = config;
    const registrations = stack.use(await openRegistrations({ path, trustDomain, log, clock }));
    await preparePrivateDirectory(stateDir, "NSM_IDENTITY_STATE_DIR");
    const state = await openState(stateDir, trustDomain);
    const authority = stack.use(
      await openAuthority({ state, timing: config, upstream: undefined, clock, log }),
    );
    const api = createAuthorityApi(() => Promise.resolve(authority));
    const admin = { path: join(stateDir, "authority.sock"), mode: 0o600, log };
    stack.use(await openPlainServer(admin, (add) => add(AuthorityService, api)));

    const federated = await openFederated(stateDir, trustDomain, log);
    const file = stack.use(
      await openWatchedFile({
        path: join(stateDir, "operator.json"),
        what: "bundles of the operator",
        parse: (text): Readonly<Record<string, string>> => JSON.parse(text),
        missing: {},
        log,
        clock,
      }),
    );
    const follow = async () => {
      const wanted = file.current();
      for (const [name, document] of Object.entries(wanted))
        await federated.set(name, document, "configuration");
      for (const name of federated.namedBy("configuration"))
        if (wanted[name] === undefined) await federated.remove(name, "configuration");
    };
    await follow();
    stack.use(file.onChange(() => void follow()));

    const trust = createTrust(authority, federated);
    const svids = createSvids(authority, config, clock);
    const callers = createCallers({ registrations, changing: [trust], clock, log });
    const workloads = createWorkloadApi({ authority, callers, svids, trust, clock, log });
    stack.use(
      await openPlainServer({ path: config.listenOn, mode: 0o666, log }, (add) =>
        add(SpiffeWorkloadAPI, {
          ...workloads,
          async *fetchX509SVID(request, call) {
            for await (const message of workloads.fetchX509SVID(request, call)) {
              const isProxy = message.svids.some(({ spiffeId }) => spiffeId.includes("/proxy/"));
              yield isProxy ? message : { ...message, federatedBundles: {} };
            }
          },
        }),
      ),
    );
    log.info({ trustDomain }, "identity serves");
  },
});

process.exitCode = await runDaemon(daemon, process.env);
