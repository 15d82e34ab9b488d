/**
 * Configuration from the environment: one table per daemon reads it, checks it and prints `--help`.
 * Every fault is reported at once; an unknown `NSM_*` is warned about with the nearest known name.
 */
import { NsmError, messageOf } from "./errors.ts";
import { readAddress } from "./grpc/address.ts";
import { formatAddress, parseIp } from "./prefix.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** One variable of the environment. */
export interface Variable<T> {
  /** `NSM_NAME` */
  readonly env: string;
  /** What `--help` shows for the value (`duration`, `url list`). */
  readonly type: string;
  /** Text form of the default, parsed like a given value; undefined = must be set. */
  readonly fallback: string | undefined;
  readonly help: string;
  /** Throws with a text that says what is expected. */
  readonly parse: (text: string) => T;
}

export type Table = Readonly<Record<string, Variable<unknown>>>;
export type ConfigOf<T extends Table> = {
  readonly [K in keyof T]: T[K] extends Variable<infer V> ? V : never;
};

type Kind<T> = (env: string, fallback: string | undefined, help: string) => Variable<T>;

export function kindOf<T>(type: string, parse: (text: string) => T): Kind<T> {
  return (env, fallback, help) => ({ env, type, fallback, help, parse });
}

export const text: Kind<string> = kindOf("text", (value) => value);
/** Text that may be unset: an empty value reads as undefined. */
export const optionalText: Kind<string | undefined> = kindOf("text", (value) => value || undefined);
export const list: Kind<readonly string[]> = kindOf("list", splitList);
export const duration: Kind<number> = kindOf("duration", parseDuration);
export const bool: Kind<boolean> = kindOf("bool", parseBool);
export const integer: Kind<number> = kindOf("number", parseInteger);
export const port: Kind<number> = kindOf("port", (value) => {
  const number = parseInteger(value);
  if (number > 65535) throw new Error("expected a port, 0 to 65535");
  return number;
});
/** `key:value,key:value` */
export const map: Kind<ReadonlyMap<string, string>> = kindOf("map", parseMap);
/** A file or directory path. */
export const path: Kind<string> = kindOf("path", (value) => value);
/** One of the given words, in any case; reads as the word of the list. */
export function oneOf<const W extends string>(...words: readonly W[]): Kind<W> {
  return kindOf(words.join("|"), (value) => {
    const word = words.find((w) => w.toLowerCase() === value.toLowerCase());
    if (word === undefined) throw new Error(`expected ${words.join(", ")}`);
    return word;
  });
}

/** `tcp://host:port`, `tcp://:port`, `unix:///path` or `host:port`. */
/** Of hosts, in canonical form. */
export const addresses: Kind<readonly string[]> = kindOf("list of IP addresses", (value) =>
  splitList(value).map(parseHostAddress),
);
/** Of a host, in canonical form; an empty value reads as undefined. */
export const optionalIp: Kind<string | undefined> = kindOf("IP address", (value) =>
  value === "" ? undefined : parseHostAddress(value),
);
export const address: Kind<string> = kindOf("address", parseAddress);
/** An address that may be unset: an empty value reads as undefined. */
export const optionalAddress: Kind<string | undefined> = kindOf("address", (value) =>
  value === "" ? undefined : parseAddress(value),
);
export const addressList: Kind<readonly string[]> = kindOf("address list", (value) =>
  splitList(value).map(parseAddress),
);

/** A variable of the Go program that is accepted only with the values that mean what we do; anything else refuses to start. */
export function only(env: string, accepted: readonly string[], why: string): Variable<undefined> {
  return {
    env,
    type: "fixed",
    fallback: "",
    help: `only ${accepted.map((value) => JSON.stringify(value)).join(" or ")}: ${why}`,
    parse: (value) => {
      if (value !== "" && !accepted.includes(value)) throw new Error(`is not supported: ${why}`);
      return undefined;
    },
  };
}

/** The policy lists that the Go programs have by default: the six rules are built in, other files are refused. */
export function policies(env: string, side: "server" | "client"): Variable<undefined> {
  const defaults = `etc/nsm/opa/common/.*.rego,etc/nsm/opa/registry/.*.rego,etc/nsm/opa/${side}/.*.rego`;
  return only(env, [defaults], "the six default policies are built in, own policy files cannot be loaded");
}

/** Variables of every daemon. */
export const commonTable = {
  logLevel: oneOf(
    "TRACE",
    "DEBUG",
    "INFO",
    "WARN",
    "ERROR",
  )("NSM_LOG_LEVEL", "INFO", "least level that is logged"),
  maxTokenLifetimeMs: duration("NSM_MAX_TOKEN_LIFETIME", "10m", "longest life of a path token"),
  spiffeSocket: address(
    "SPIFFE_ENDPOINT_SOCKET",
    "unix:///run/nsm/identity.sock",
    "SPIFFE Workload API: the built-in authority, or an agent of SPIRE",
  ),
  openTelemetryEndpoint: only(
    "NSM_OPEN_TELEMETRY_ENDPOINT",
    ["", "otel-collector.observability.svc.cluster.local:4317"],
    "traces are not exported",
  ),
  metricsListenOn: optionalAddress(
    "NSM_METRICS_LISTEN_ON",
    "",
    "Prometheus metrics at /metrics and readiness at /healthz, for whoever reaches this address; unset: none",
  ),
  metricsExportInterval: duration(
    "NSM_METRICS_EXPORT_INTERVAL",
    "10s",
    "read for compatibility; nothing is exported",
  ),
  pprofEnabled: only("NSM_PPROF_ENABLED", ["false", "0", "f"], "use node --inspect for profiles"),
  pprofListenOn: optionalText("NSM_PPROF_LISTEN_ON", "", "read for compatibility; there is no profiler port"),
} as const satisfies Table;

const COMMON: ReadonlySet<string> = new Set(Object.values(commonTable).map(({ env }) => env));
const COMPATIBILITY = "read for compatibility";

/**
 * Reads a table. Throws INVALID_ARGUMENT `bad-configuration` that lists every fault.
 * `warn` gets one line for each `NSM_*` variable that the table does not know.
 */
export function readConfig<T extends Table>(
  table: T,
  env: Environment,
  warn: (line: string) => void,
): ConfigOf<T> {
  const faults: string[] = [];
  const config: Record<string, unknown> = {};
  for (const [key, variable] of Object.entries(table)) {
    const given = env[variable.env];
    const value = given === undefined || given === "" ? variable.fallback : given;
    if (value === undefined) {
      faults.push(`${variable.env} must be set: ${variable.help}`);
      continue;
    }
    try {
      config[key] = variable.parse(value);
    } catch (error) {
      faults.push(`${variable.env}=${value}: ${messageOf(error)}`);
    }
  }
  for (const line of unknownVariables(table, env)) warn(line);
  if (faults.length > 0)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-configuration",
      `bad configuration:\n  ${faults.join("\n  ")}`,
    );
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- each key was made by its own variable of the table
  return Object.freeze(config) as ConfigOf<T>;
}

/** Set by the webhook or by other parts of the mesh, of no concern to a daemon that does not list them. */
const FOREIGN = new Set(["NSM_VECTORS"]);

function unknownVariables(table: Table, env: Environment): string[] {
  const known = Object.values(table).map((variable) => variable.env);
  return Object.keys(env)
    .filter((name) => name.startsWith("NSM_") && !known.includes(name) && !FOREIGN.has(name))
    .map(
      (name) =>
        `${name} is not a variable of this command and has no effect; the nearest is ${nearest(name, known)}`,
    );
}

/** The name that is most like the given one. */
export function nearest(name: string, known: readonly string[]): string {
  let best = "none";
  let bestDistance = Infinity;
  for (const candidate of known) {
    const distance = editDistance(name, candidate);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Levenshtein distance. */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitute = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitute, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/** The table as the "Environment" part of `--help`: name, type and default on one line, the meaning below it. */
export function helpOf(table: Table, width = 100): string {
  return Object.values(table)
    .toSorted((a, b) => rankOf(a) - rankOf(b))
    .map(({ env, type, fallback, help }) => {
      const facts = fallback === undefined ? "required" : fallback === "" ? "" : `default ${fallback}`;
      return `  ${env}  (${[type, facts].filter(Boolean).join(", ")})\n${wrap(help, width, "      ")}`;
    })
    .join("\n");
}

/** What is special to a daemon stands before what all have, and what has no effect at the end. */
function rankOf({ env, type, help }: Variable<unknown>): number {
  if (type === "fixed" || help.startsWith(COMPATIBILITY)) return 2;
  return COMMON.has(env) ? 1 : 0;
}

/** Breaks at spaces so that no line is longer than `width` (unless a word is); every line starts with `indent`. */
function wrap(sentence: string, width: number, indent: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of sentence.split(/\s+/)) {
    if (line !== "" && indent.length + line.length + 1 + word.length > width) {
      lines.push(indent + line);
      line = "";
    }
    line += line === "" ? word : ` ${word}`;
  }
  return [...lines, indent + line].join("\n");
}

const UNITS_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** Go's duration text (`1h15m30.5s`) in milliseconds; negative and unit-less values are refused, `0` is fine. */
export function parseDuration(value: string): number {
  if (value === "0") return 0;
  const parts = [...value.matchAll(/(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)/gy)];
  const read = parts.reduce((length, part) => length + part[0].length, 0);
  if (parts.length === 0 || read !== value.length)
    throw new Error("expected a duration such as 750ms, 10s or 1h30m");
  return parts.reduce((sum, part) => sum + Number(part[1]) * (UNITS_MS[part[2] ?? ""] ?? Number.NaN), 0);
}

function parseBool(value: string): boolean {
  if (["1", "t", "T", "TRUE", "true", "True"].includes(value)) return true;
  if (["0", "f", "F", "FALSE", "false", "False"].includes(value)) return false;
  throw new Error("expected true or false");
}

function parseInteger(value: string): number {
  const number = Number(value);
  if (!/^\d+$/.test(value) || !Number.isSafeInteger(number)) throw new Error("expected a whole number");
  return number;
}

function parseHostAddress(value: string): string {
  const ip = parseIp(value.trim());
  if (ip === undefined) throw new Error(`${JSON.stringify(value)} is no IP address`);
  return formatAddress(ip);
}

export function splitList(value: string): readonly string[] {
  return value === "" ? [] : value.split(",");
}

function parseMap(value: string): ReadonlyMap<string, string> {
  return new Map(
    splitList(value).map((pair) => {
      const colon = pair.indexOf(":");
      if (colon < 1) throw new Error(`expected key:value, got ${JSON.stringify(pair)}`);
      return [pair.slice(0, colon), pair.slice(colon + 1)];
    }),
  );
}

function parseAddress(value: string): string {
  const address = readAddress(value);
  if ("fault" in address) throw new Error(address.fault);
  return value;
}
