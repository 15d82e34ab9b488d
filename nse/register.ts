/** What an endpoint keeps registered: its network services, and itself (docs/protocol.md, "Registry"). */
import { create } from "@bufbuild/protobuf";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import { clientInfoOf } from "../sdk/client-info.ts";
import type { Clock } from "../sdk/clock.ts";
import { NsmError } from "../sdk/errors.ts";
import type { Logger } from "../sdk/log.ts";
import { keepRegistered } from "../sdk/registry/registrant.ts";
import type { Registrant } from "../sdk/registry/registrant.ts";
import { findAll } from "../sdk/registry/registry.ts";
import type { Registries } from "../sdk/registry/registry.ts";
import type { EndpointConfig } from "./config.ts";

export interface RegisterOptions {
  readonly config: Pick<
    EndpointConfig,
    | "name"
    | "serviceNames"
    | "registerService"
    | "payload"
    | "labels"
    | "unregisterItself"
    | "idleTimeoutMs"
    | "nodeName"
    | "podName"
    | "zoneName"
    | "clusterName"
  >;
  readonly registries: Registries;
  /** Own socket, as the manager reaches it. */
  readonly url: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Services first, then the endpoint; one after the other as each is asked for. */
export function* registerAll(options: RegisterOptions): Generator<Registrant> {
  const { config, registries, url, clock, log } = options;
  // Who stops because nobody needs it must not be chosen meanwhile.
  const unregister = config.unregisterItself || config.idleTimeoutMs > 0;
  const shared = { clock, log };
  for (const name of config.registerService ? config.serviceNames : [])
    yield keepRegistered({
      ...shared,
      registry: registries.services,
      entry: () => create(NetworkServiceSchema, { name, payload: config.payload }),
      query: create(NetworkServiceSchema, { name }),
      what: `network service ${name}`,
      unregister: false, // other endpoints offer it, too
      accept: (error) => isThereAlready(registries, name, config.payload, error, log),
    });
  yield keepRegistered({
    ...shared,
    registry: registries.endpoints,
    entry: () => endpointRecord(config, url),
    query: create(NetworkServiceEndpointSchema, { name: config.name }),
    what: `endpoint ${config.name}`,
    unregister,
  });
}

/** A service belongs to whoever registered it first; an equal one is as good as ours. */
async function isThereAlready(
  registries: Registries,
  name: string,
  payload: string,
  error: unknown,
  log: Logger,
): Promise<boolean> {
  if (!(error instanceof NsmError) || error.code !== "PERMISSION_DENIED") return false;
  const found = await findAll(
    registries.services,
    create(NetworkServiceSchema, { name }),
    AbortSignal.timeout(5000),
  );
  const service = found.find((each) => each.name === name);
  if (service !== undefined && service.payload !== payload)
    log.error(
      { service: name },
      `network service ${name} is registered by somebody else with payload ${service.payload}, not ${payload}: set NSM_PAYLOAD to it, or use another name`,
    );
  return service?.payload === payload;
}

function endpointRecord(config: RegisterOptions["config"], url: string) {
  const labels = { ...Object.fromEntries(config.labels), ...Object.fromEntries(clientInfoOf(config)) };
  return create(NetworkServiceEndpointSchema, {
    name: config.name,
    networkServiceNames: [...config.serviceNames],
    networkServiceLabels: Object.fromEntries(config.serviceNames.map((service) => [service, { labels }])),
    url,
  });
}
