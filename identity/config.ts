/** What the environment tells the authority. */
import { commonTable, duration, path, text } from "../sdk/config.ts";
import type { ConfigOf, Table, Variable } from "../sdk/config.ts";
import { NsmError } from "../sdk/errors.ts";
import { Defaults } from "../sdk/defaults.ts";
import { parseAddress } from "../sdk/grpc/address.ts";
import { idPatterns } from "../sdk/peer-ids.ts";
import { parseTrustDomain } from "../sdk/spiffe/id.ts";
import { leastCaLifetimeMs } from "./generations.ts";

const trustDomain: Variable<string> = {
  ...text("NSM_IDENTITY_TRUST_DOMAIN", "nsm.local", "trust domain of every identity that is issued"),
  type: "trust domain",
  parse: parseTrustDomain,
};

/** Reads as the socket's path. */
const listenOn: Variable<string> = {
  ...text(
    "NSM_IDENTITY_LISTEN_ON",
    "unix:///run/nsm/identity.sock",
    "unix socket of the Workload API; others name it in SPIFFE_ENDPOINT_SOCKET",
  ),
  type: "address",
  parse: (value) => {
    const address = parseAddress(value);
    if (address.kind !== "unix") throw new Error("expected unix:///path: callers are known by their process");
    return address.path;
  },
};

const svidLifetimeMs: Variable<number> = {
  ...duration(
    "NSM_IDENTITY_SVID_LIFETIME",
    "1h",
    "life of a certificate; a new one is pushed at about half of it",
  ),
  parse: (value) => {
    const ms = duration("", undefined, "").parse(value);
    if (ms < 1000 || ms > 30 * 24 * 3_600_000) throw new Error("expected 1s to 720h");
    return ms;
  },
};

const caLifetimeMs: Variable<number> = {
  ...duration(
    "NSM_IDENTITY_CA_LIFETIME",
    "8760h",
    "life of the CA certificate; the next one is published and takes over in time, by itself",
  ),
  parse: (value) => {
    const ms = duration("", undefined, "").parse(value);
    if (ms > 10 * 8760 * 3_600_000) throw new Error("expected at most ten years, 87600h");
    return ms;
  },
};

const refreshHintMs: Variable<number> = {
  ...duration(
    "NSM_IDENTITY_REFRESH_HINT",
    "5m",
    "how often other trust domains are to ask for our bundle; new keys sign after four of these",
  ),
  parse: (value) => {
    const ms = duration("", undefined, "").parse(value);
    if (ms < 1000 || ms > 24 * 3_600_000 || ms % 1000 !== 0)
      throw new Error("expected whole seconds, 1s to 24h");
    return ms;
  },
};

export const table = {
  logLevel: commonTable.logLevel,
  metricsListenOn: commonTable.metricsListenOn,
  trustDomain,
  listenOn,
  stateDir: path(
    "NSM_IDENTITY_STATE_DIR",
    Defaults.identityStateDir,
    "directory (0700) that keeps the authority's keys",
  ),
  registrations: path(
    "NSM_IDENTITY_REGISTRATIONS",
    "/etc/nsm/registrations.yaml",
    "who gets which identity (docs/identity.md); read again when it changes",
  ),
  svidLifetimeMs,
  caLifetimeMs,
  refreshHintMs,
  federationIds: idPatterns(
    "NSM_IDENTITY_FEDERATION_IDS",
    Defaults.proxyIds,
    "SPIFFE ids (patterns) that may say which other trust domains are trusted",
  ),
} as const satisfies Table;

export type IdentityConfig = ConfigOf<typeof table>;

/** Throws INVALID_ARGUMENT `bad-configuration`. */
export function checkLifetimes(config: IdentityConfig): void {
  const leastMs = leastCaLifetimeMs(config);
  if (config.caLifetimeMs >= leastMs) return;
  throw new NsmError(
    "INVALID_ARGUMENT",
    "bad-configuration",
    `NSM_IDENTITY_CA_LIFETIME is ${config.caLifetimeMs / 1000} s, too short for certificates of ${config.svidLifetimeMs / 1000} s and a refresh hint of ${config.refreshHintMs / 1000} s: at least ${leastMs / 1000} s`,
  );
}
