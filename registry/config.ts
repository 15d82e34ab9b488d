/** The registry's variables. */
import {
  addressList,
  bool,
  commonTable,
  duration,
  optionalAddress,
  optionalText,
  policies,
} from "../sdk/config.ts";
import type { ConfigOf, Table } from "../sdk/config.ts";
import { Defaults } from "../sdk/defaults.ts";
import { dnsDomains } from "../sdk/domains/dns-domains.ts";
import { refusedAddresses } from "../sdk/endpoint-url.ts";
import { idPatterns } from "../sdk/peer-ids.ts";

export const table = {
  listenOn: addressList("NSM_LISTEN_ON", Defaults.registryListen, "where the registry serves"),
  managerIds: idPatterns("NSM_MANAGER_IDS", Defaults.managerIds, "who may register in the name of others"),
  bindManagers: bool(
    "NSM_BIND_MANAGERS",
    "true",
    "what a manager has registered is changed by nobody else while it is connected",
  ),
  refusedAddresses: refusedAddresses(),
  registryServerPolicies: policies("NSM_REGISTRY_SERVER_POLICIES", "server"),
  registryClientPolicies: policies("NSM_REGISTRY_CLIENT_POLICIES", "client"),
  proxyRegistryUrl: optionalAddress(
    "NSM_PROXY_REGISTRY_URL",
    "",
    "proxy of this domain, which is asked for names of others (service@domain); without it they are refused",
  ),
  proxyIds: idPatterns(
    "NSM_PROXY_IDS",
    Defaults.proxyIds,
    "who may answer as that proxy, and register in the name of others",
  ),
  dnsDomains: dnsDomains(
    "other domains whose proxies may ask this registry, as the programs in Go do, for what spec.exportTo of a service shows them",
  ),
  expirePeriodMs: duration(
    "NSM_EXPIRE_PERIOD",
    "1m",
    "read for compatibility; a registration lives one minute",
  ),
  servicesPath: optionalText(
    "NSM_NETWORK_SERVICES_PATH",
    "",
    "file with manifests of network services, read again when it changes; nobody else may change these services",
  ),
  ...commonTable,
} as const satisfies Table;

export type RegistryConfig = ConfigOf<typeof table>;
