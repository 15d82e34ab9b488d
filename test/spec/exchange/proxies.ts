/** The proxies of a domain, as proxy/passing.ts builds them. */
import { randomUUID } from "node:crypto";
import { toJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { MonitorConnection } from "../../../api/gen/connection_pb.js";
import { NetworkService } from "../../../api/gen/networkservice_pb.js";
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../../../api/gen/registry_pb.js";
import { createProxyChain } from "../../../proxy/chain.ts";
import { createDomainRegistries } from "../../../proxy/domain-registries.ts";
import { rememberEndpoints } from "../../../proxy/remote-endpoints.ts";
import { Defaults } from "../../../sdk/defaults.ts";
import { NO_EXPORTS } from "../../../sdk/domains/exports.ts";
import { createMonitorStore } from "../../../sdk/elements/monitor.ts";
import { monitorHandlers, networkServiceHandlers } from "../../../sdk/elements/serve.ts";
import { createHops } from "../../../sdk/hops.ts";
import { silentLogger as log } from "../../../sdk/log.ts";
import { idMatcher, idMatcherOfAnyDomain } from "../../../sdk/peer-ids.ts";
import { createRegistryClient } from "../../../sdk/registry/client.ts";
import type { Registries } from "../../../sdk/registry/registry.ts";
import { endpointRegistryHandlers, serviceRegistryHandlers } from "../../../sdk/registry/serve.ts";
import { createReach } from "../../../sdk/reach.ts";
import { createRegistryView } from "../../../sdk/registry/view.ts";
import type { Bench } from "./bench.ts";
import { memberOf, publicUrlOf, textOf } from "./places.ts";
import type { Playback } from "./playback.ts";
import { methodOf, requestOf, responsesOf } from "./recording.ts";
import type { RecordedCase } from "./recording.ts";
import type { Start } from "./roles.ts";

/** Names that nobody owns here: other registries know. */
const RELAY = { ownersOfService: () => undefined, ownersOfEndpoint: () => undefined, mayRelay: () => true };

export const startRegistryProxy: Start = (bench, playback) => {
  const other = (role: string) => {
    const url = urlIn(bench, role, bench.component.name.endsWith("a") ? "b" : "a");
    return Promise.resolve(url ?? "");
  };
  const registries = createDomainRegistries({
    // The recording has two domains, and each knows the other.
    resolver: {
      registryOf: () => other("registry"),
      proxyOf: () => other("nsmgr-proxy"),
    },
    open: (url) => registriesAt(bench, playback, url),
    clock: bench.clock,
    log,
  });
  return { handlers: registryHandlers(bench, registries), [Symbol.asyncDispose]: () => Promise.resolve() };
};

export const startManagerProxy: Start = (bench, playback) => {
  const { component, clock, minter, subject, recorded, trustDomain } = bench;
  const stack = new AsyncDisposableStack();
  const url = publicUrlOf(component);
  const upstream = registriesAt(bench, playback, sameDomain(bench, "registry-proxy") ?? "");
  const { registry: endpoints, remote } = rememberEndpoints(upstream.endpoints, {
    here: url,
    elsewhere: () => url,
  });
  const home = registriesAt(bench, playback, sameDomain(bench, "registry") ?? "");
  const view = stack.use(createRegistryView(home, clock, log));
  const hops = stack.use(createHops({ pool: playback.pool, minter, name: component.name, log }));
  const store = createMonitorStore();
  const outer = outerAddresses(recorded);
  const chain = createProxyChain({
    name: component.name,
    minter,
    clock,
    store,
    log,
    hops,
    exports: NO_EXPORTS,
    newId: () => subject.names.invent(randomUUID()),
    side: {
      remote,
      peers: { domainOf: () => undefined }, // one trust domain
      isForwarder: idMatcher(Defaults.forwarderIds.split(","), trustDomain),
      isManager: () => true,
      refusedAddresses: [], // the recordings were made on the loopback
      isProxy: idMatcherOfAnyDomain(Defaults.proxyIds.split(",")),
    },
    select: { view, clock, log, isManager: () => true, isProxy: () => false, refusedAddresses: [] },
    reach: createReach({ probe: hops.probe, clock, log }),
    tunnelMtuBytes: 1420,
    outerAddress: (inner) => outer.get(inner) ?? inner,
    unencryptedDomains: ["*"], // the recorded forwarders had VXLAN (D65)
  });
  return {
    handlers: new Map<string, Readonly<Record<string, unknown>>>([
      [NetworkService.typeName, networkServiceHandlers(chain)],
      [MonitorConnection.typeName, monitorHandlers(store)],
      ...registryHandlers(bench, { services: upstream.services, endpoints }),
    ]),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
};

export function registriesAt({ minter, clock }: Bench, { pool }: Playback, url: string): Registries {
  return createRegistryClient({ pool, minter, clock, target: { url } });
}

function registryHandlers({ clock, minter }: Bench, registries: Registries) {
  const options = { clock, minter, ...RELAY };
  return new Map<string, Readonly<Record<string, unknown>>>([
    [NetworkServiceRegistry.typeName, serviceRegistryHandlers(registries, options)],
    [NetworkServiceEndpointRegistry.typeName, endpointRegistryHandlers(registries, options)],
  ]);
}

/** The address of the component of that role in the component's own domain. */
export function sameDomain(bench: Bench, role: string): string | undefined {
  return urlIn(bench, role, bench.component.name.slice(-1));
}

function urlIn({ recorded }: Bench, role: string, domain: string): string | undefined {
  const found = recorded.components.find(({ name }) => name === `${role}-${domain}`);
  return found && publicUrlOf(found);
}

/** What the recorded proxies read from their files: what they made of which address. */
function outerAddresses(recorded: RecordedCase): ReadonlyMap<string, string> {
  const outer = new Map<string, string>();
  const note = (mechanism: JsonValue | undefined) => {
    const parameter = (name: string) => textOf(memberOf(memberOf(mechanism, "parameters"), name));
    for (const end of ["src", "dst"])
      if (parameter(`orig_${end}_ip`) !== "") outer.set(parameter(`orig_${end}_ip`), parameter(`${end}_ip`));
  };
  for (const call of recorded.calls.filter(({ method }) => method.endsWith("NetworkService/Request"))) {
    const offers = memberOf(toJson(methodOf(call).input, requestOf(call)), "mechanismPreferences");
    if (Array.isArray(offers)) for (const offer of offers) note(offer);
    for (const answer of responsesOf(call))
      note(memberOf(toJson(methodOf(call).output, answer), "mechanism"));
  }
  return outer;
}
