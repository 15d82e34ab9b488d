/** What the environment tells the authority. */
import { commonTable, duration, optionalAddress, optionalText, path, text } from "../sdk/config.ts";
import type { ConfigOf, Table, Variable } from "../sdk/config.ts";
import { NsmError } from "../sdk/errors.ts";
import { Defaults } from "../sdk/defaults.ts";
import { parseAddress } from "../sdk/grpc/address.ts";
import { idPatterns } from "../sdk/peer-ids.ts";
import { parseTrustDomain } from "../sdk/spiffe/id.ts";
import { leastCaLifetimeMs } from "./generations.ts";
import type { UpstreamFiles } from "./upstream.ts";

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

const svidRenewalMs: Variable<number | undefined> = {
  env: "NSM_IDENTITY_SVID_RENEWAL",
  type: "duration",
  fallback: "",
  help: "when a new certificate is pushed, from the issue of the last one on; unset, and at the latest: at half of its life",
  parse: (value) => {
    if (value === "") return undefined;
    const ms = duration("", undefined, "").parse(value);
    if (ms < 500) throw new Error("expected at least 500ms");
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

const bundleListenOn: Variable<string | undefined> = {
  ...optionalAddress(
    "NSM_IDENTITY_BUNDLE_LISTEN_ON",
    "",
    "tcp://host:port of our own bundle endpoint (https_spiffe), for whoever reaches it; unset: none",
  ),
  parse: (value) => {
    if (value === "") return undefined;
    if (parseAddress(value).kind !== "tcp") throw new Error("expected tcp://host:port");
    return value;
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
  svidRenewalMs,
  caLifetimeMs,
  refreshHintMs,
  federationIds: idPatterns(
    "NSM_IDENTITY_FEDERATION_IDS",
    Defaults.proxyIds,
    "SPIFFE ids (patterns) that may say which other trust domains are trusted",
  ),
  federation: optionalText(
    "NSM_IDENTITY_FEDERATION",
    "",
    "file of trust domains that are trusted and where their bundles are fetched (docs/identity.md); read again when it changes; unset: none",
  ),
  bundleListenOn,
  upstreamCert: optionalText(
    "NSM_IDENTITY_UPSTREAM_CERT",
    "",
    "PEM file of an intermediate CA that signs instead of a CA of our own, then those between it and the root",
  ),
  upstreamKey: optionalText("NSM_IDENTITY_UPSTREAM_KEY", "", "PEM file (PKCS #8) of that CA's key"),
  upstreamBundle: optionalText("NSM_IDENTITY_UPSTREAM_BUNDLE", "", "PEM file of the root, or several"),
} as const satisfies Table;

export type IdentityConfig = ConfigOf<typeof table>;

/** What no variable says by itself. Throws INVALID_ARGUMENT `bad-configuration`. */
export function checkConfig(config: IdentityConfig): void {
  const leastMs = leastCaLifetimeMs(config);
  if (config.caLifetimeMs < leastMs)
    throw bad(
      `NSM_IDENTITY_CA_LIFETIME is ${config.caLifetimeMs / 1000} s, too short for certificates of ${config.svidLifetimeMs / 1000} s and a refresh hint of ${config.refreshHintMs / 1000} s: at least ${leastMs / 1000} s`,
    );
  const { upstreamCert, upstreamKey, upstreamBundle } = config;
  const given = [upstreamCert, upstreamKey, upstreamBundle].filter((each) => each !== undefined);
  if (given.length % 3 !== 0)
    throw bad("NSM_IDENTITY_UPSTREAM_CERT, _KEY and _BUNDLE belong together: set all three or none");
}

/** The files of an authority above ours, if there is one. */
export function upstreamFilesOf(config: IdentityConfig): UpstreamFiles | undefined {
  const { upstreamCert: certificate, upstreamKey: key, upstreamBundle: bundle } = config;
  if (certificate === undefined || key === undefined || bundle === undefined) return undefined;
  return { certificate, key, bundle };
}

function bad(text: string): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-configuration", text);
}
