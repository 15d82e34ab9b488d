/** What this domain has and shows to others: its registry, what is exported of it, the addresses by which it is known. */
import { eitherOf, followExportedServices } from "../sdk/domains/exports.ts";
import type { Exports } from "../sdk/domains/exports.ts";
import type { Logger } from "../sdk/log.ts";
import type { Mesh } from "../sdk/mesh.ts";
import { idMatcher } from "../sdk/peer-ids.ts";
import { publishedUrl } from "../sdk/published-url.ts";
import { createRegistryClient } from "../sdk/registry/client.ts";
import type { Registries } from "../sdk/registry/registry.ts";
import { openWatchedFile } from "../sdk/watched-file.ts";
import type { PassingConfig } from "./config.ts";
import { openExportStore } from "./exports/store.ts";
import type { ExportStore } from "./exports/store.ts";
import { NO_OUTER_ADDRESSES, createOuterAddress, outerUrl, parseOuterAddresses } from "./outer-addresses.ts";
import type { OuterAddressOptions } from "./outer-addresses.ts";

export interface Home {
  readonly registries: Registries;
  /** The same, by sessions for that domain alone. */
  readonly registriesFor: (domain: string) => Registries;
  /** What operators said at this proxy, what the registry's services say of themselves, and both together. */
  readonly saved: ExportStore;
  readonly ofRegistry: Exports;
  readonly exports: Exports;
  /** Address of this proxy inside. */
  readonly here: string;
  /** Its address outside. */
  readonly url: () => string;
  /** What is said of the addresses that nodes have outside. */
  readonly outerAddresses: OuterAddressOptions;
}

export async function openHome(
  config: PassingConfig,
  mesh: Mesh,
  log: Logger,
  stack: AsyncDisposableStack,
): Promise<Home> {
  const { clock, trustDomain } = mesh;
  const path = config.mapIpFilePath;
  const file =
    path === undefined
      ? undefined
      : stack.use(
          await openWatchedFile({
            path,
            variable: "NSM_MAP_IP_FILE_PATH",
            what: "addresses for other domains",
            parse: parseOuterAddresses,
            missing: NO_OUTER_ADDRESSES, // it may come with the nodes
            log,
            clock,
          }),
        );
  if (file?.current() === NO_OUTER_ADDRESSES)
    log.warn({ path }, "no addresses for other domains yet: nodes keep their own until the file is there");
  const outerAddresses = { file: () => file?.current() ?? NO_OUTER_ADDRESSES, all: config.externalIp };
  const here = publishedUrl(config.listenOn);
  const url = () => config.externalUrl ?? outerUrl(here, createOuterAddress(outerAddresses));
  const target = { url: config.registryUrl, expect: idMatcher(config.registryIds, trustDomain) };
  const registries = createRegistryClient({ ...mesh, target });
  const registriesFor = (domain: string) =>
    createRegistryClient({ ...mesh, target: { ...target, key: `${target.url} for ${domain}` } });
  const ofRegistry = stack.use(followExportedServices(registries.services, clock, log));
  const saved = await openExportStore(config.stateDir);
  const exports = eitherOf(saved, ofRegistry);
  return { registries, registriesFor, saved, ofRegistry, exports, here, url, outerAddresses };
}
