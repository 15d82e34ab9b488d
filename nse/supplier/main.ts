/** The supplier: an endpoint that serves nobody, and starts endpoints that do. */
import { randomUUID } from "node:crypto";
import { defineDaemon } from "../../sdk/daemon.ts";
import { createMonitorStore } from "../../sdk/elements/monitor.ts";
import { serverChain } from "../../sdk/elements/server-chain.ts";
import { connectionOf } from "../../sdk/elements/update-path.ts";
import { managerTarget } from "../../sdk/manager-client.ts";
import { openMesh } from "../../sdk/mesh.ts";
import { createRegistryClient } from "../../sdk/registry/client.ts";
import { serveEndpoint } from "../serve.ts";
import { childEnvironment } from "./child-environment.ts";
import { table } from "./config.ts";
import { startChild } from "./start-child.ts";
import { createSupply } from "./supply.ts";
import { orderFor } from "./template.ts";

export const daemon = defineDaemon({
  name: "nse supplier",
  summary: "supplier: starts an endpoint when somebody asks for one",
  about:
    "An endpoint on demand. A Request that reaches it starts another endpoint of the same network services, as a process of the given command, and is told to ask again; once that endpoint is registered, the matches of the network service lead there (its match stands before the supplier's, with fallthrough). It stops by itself when it was idle, and with the supplier.",
  table,
  async open(config, runtime, stack) {
    const { log } = runtime;
    const mesh = stack.use(await openMesh(config, runtime));
    const { keep, limit } = config;
    const env = childEnvironment(config, process.env);
    const supply = stack.use(
      createSupply({
        start: (order) =>
          startChild(
            { ...order, env: { NSM_NAME: `${config.name}-${randomUUID().slice(0, 8)}`, ...order.env } },
            { env, keep },
          ),
        limit,
        keep,
        clock: mesh.clock,
        log,
      }),
    );
    const store = createMonitorStore();
    const chain = serverChain({ ...mesh, name: config.name, store, log }).end({
      request: async (request) =>
        await supply.ask(orderFor(config.command, config.env, connectionOf(request).labels)),
      close: () => Promise.resolve(),
    });
    const registries = createRegistryClient({ ...mesh, target: managerTarget(config, mesh) });
    stack.use(await serveEndpoint({ config, mesh, runtime, chain, store, registries }));
  },
});
