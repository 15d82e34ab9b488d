/** Address management as recorded: sequences against every kind of Ipam and the pools below. */
import { fromJson, toJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { ExtraPrefixRequestSchema, IPContextSchema } from "../../api/gen/connectioncontext_pb.js";
import { PrefixRequestSchema } from "../../api/gen/ipam_pb.js";
import { NsmError } from "../../sdk/errors.ts";
import { createGroup } from "../../sdk/ipam/group.ts";
import type { Client, Ipam } from "../../sdk/ipam/ipam.ts";
import { createPointToPoint } from "../../sdk/ipam/point-to-point.ts";
import { IpPool } from "../../sdk/ipam/pool.ts";
import { createPrefixPool } from "../../sdk/ipam/prefix-pool.ts";
import type { PrefixPool } from "../../sdk/ipam/prefix-pool.ts";
import { createPrefixServer } from "../../sdk/ipam/prefix-server.ts";
import { createSinglePoint } from "../../sdk/ipam/single-point.ts";
import { createStrict } from "../../sdk/ipam/brought.ts";
import { createStrictVl3, createVl3 } from "../../sdk/ipam/vl3.ts";
import type { Vl3Ipam } from "../../sdk/ipam/vl3.ts";
import { formatAddress, formatPrefix, hostPrefix, parseIp, parsePrefix, rangeOf } from "../../sdk/prefix.ts";
import type { Family, IpAddress, IpRange } from "../../sdk/prefix.ts";
import { faultIn } from "./ipam-faults.ts";
import type { Kind, RecordedContext, RecordedStep } from "./ipam-faults.ts";
import { describeVectors, outcomeOf, same, sameError, vectorKind } from "./support.ts";

type ConnectionStep = RecordedStep & {
  /** Of a `reset`. */
  readonly prefix?: string;
  readonly exclude?: readonly string[];
};

interface ConnectionCase<Config> {
  readonly config: Config;
  readonly steps: readonly ConnectionStep[];
}

const contextOf = (recorded: RecordedContext | null) =>
  fromJson(IPContextSchema, JSON.parse(JSON.stringify(recorded ?? {})));

/** What the rest of the chain answers in a `request-fails`. */
const REFUSED = new NsmError("INTERNAL", "refused", "downstream says no");

function requestOnce(ipam: Ipam, step: ConnectionStep): JsonValue {
  const context = contextOf(step.ipContext);
  const client: Client = { bringsDns: step.withDns === true };
  const lease = ipam.request(step.id, context, client);
  if (step.op === "request-fails") {
    lease.rollback();
    throw REFUSED;
  }
  lease.commit();
  return toJson(IPContextSchema, context);
}

/** `make` fails when the configuration is wrong: then every step does. */
function connectionKind<Config>(make: (config: Config) => { ipam: Ipam; reset?: Vl3Ipam["reset"] }) {
  return async ({ config, steps }: ConnectionCase<Config>) => {
    const made = await outcomeOf(() => make(config));
    for (const [i, step] of steps.entries()) {
      const ours = await outcomeOf(() => {
        if ("error" in made) throw made.error;
        if (step.op === "reset") return made.value.reset?.(step.prefix ?? "", step.exclude ?? []);
        if (step.op === "close") return made.value.ipam.close(step.id);
        return requestOnce(made.value.ipam, step);
      });
      const found = sameError(ours, step.error);
      if (found === undefined) continue;
      const recorded = toJson(IPContextSchema, contextOf(step.result ?? null));
      same(`step ${i} ${step.op} ${step.id}`, found, recorded);
    }
  };
}

function makeVl3(config: readonly (readonly [string, ...string[]])[]) {
  const parts = config.map(([prefix, ...excluded]) => {
    const part = createVl3();
    part.reset(prefix, excluded);
    return part;
  });
  const reset: Vl3Ipam["reset"] = (prefix, excluded) => parts[0]?.reset(prefix, excluded);
  return { parts, ipam: createGroup(parts), reset };
}

const groupOf = (config: readonly (readonly string[])[], part: (prefixes: readonly string[]) => Ipam) => ({
  ipam: createGroup(config.map(part)),
});
const strictPart = (prefixes: readonly string[]) => createStrict(createPointToPoint(prefixes), prefixes);

interface PoolStep {
  readonly op: string;
  readonly arg?: string;
  readonly exclude?: string;
  readonly prefixes: readonly string[];
  readonly result?: JsonValue;
  readonly error?: string;
}

function poolRange(text = ""): IpRange {
  const ip = parseIp(text);
  const prefix = parsePrefix(text);
  if (ip !== undefined) return { family: ip.family, first: ip.address, last: ip.address };
  if (prefix === undefined) throw new Error(`no prefix: ${text}`);
  return rangeOf(prefix);
}

function given(address: IpAddress | undefined): IpAddress {
  if (address === undefined) throw new NsmError("RESOURCE_EXHAUSTED", "ipam-exhausted", "pool is empty");
  return address;
}

function poolStep(pool: IpPool, { op, arg, exclude }: PoolStep): JsonValue | undefined {
  const excluded = exclude === undefined ? [] : [poolRange(exclude)];
  switch (op) {
    case "exclude":
      pool.remove(poolRange(arg));
      return undefined;
    case "add":
    case "addNet":
      pool.add(poolRange(arg));
      return undefined;
    case "contains":
    case "containsNet":
      return pool.has(poolRange(arg));
    case "pull":
      return formatAddress(given(pool.takeLowest()));
    case "pullIP": {
      const { family, first } = poolRange(arg);
      return pool.take({ family, address: first }) ? arg : formatAddress(given(undefined));
    }
    case "pullPair": {
      const pair = pool.takeLowestTwo(excluded) ?? [given(undefined)];
      return pair.map((address) => formatPrefix(hostPrefix(address)));
    }
    default:
      throw new Error(`unknown operation ${op}`);
  }
}

async function checkPool({
  config,
  steps,
}: {
  readonly config: string;
  readonly steps: readonly PoolStep[];
}) {
  const pool = new IpPool([poolRange(config)]);
  for (const [i, step] of steps.entries()) {
    const ours = await outcomeOf(() => ({ result: poolStep(pool, step) }));
    const found = sameError(ours, step.error === undefined ? undefined : true);
    if (found !== undefined) same(`step ${i} ${step.op}`, found.result, step.result);
    same(`step ${i} ${step.op}: prefixes`, pool.prefixes().map(formatPrefix), step.prefixes);
  }
}

interface ServerCase {
  readonly config: { readonly prefix: string; readonly size: number };
  readonly streams: readonly {
    readonly exchange: readonly {
      readonly request?: { readonly type?: string; readonly prefix?: string };
      readonly response?: JsonValue;
    }[];
    readonly end: string;
  }[];
}

/** A request without type ends the stream while prefixes are out. */
function endsUndefined(exchange: ServerCase["streams"][number]["exchange"]): boolean {
  const isUndefined = exchange.some(({ request }) => request !== undefined && request.type === undefined);
  return isUndefined && exchange.some(({ response }) => response !== undefined);
}

async function checkServer({ config, streams }: ServerCase): Promise<void> {
  const server = createPrefixServer(config.prefix, config.size);
  for (const { exchange, end } of streams) {
    const stream = server.openStream();
    const answers: JsonValue[] = [];
    const ours = await outcomeOf(() => {
      for (const { request } of exchange) {
        if (request === undefined) continue;
        const asked = fromJson(PrefixRequestSchema, request);
        const prefix = stream.handle(asked);
        if (prefix === undefined) continue;
        const { excludePrefixes } = asked;
        answers.push(excludePrefixes.length === 0 ? { prefix } : { prefix, excludePrefixes });
      }
    });
    stream.end();
    sameError(ours, end.endsWith("EOF") ? undefined : true);
    same(
      "answers",
      answers,
      exchange.flatMap(({ response }) => response ?? []),
    );
  }
}

interface PrefixPoolStep {
  readonly op: "extract" | "release" | "exclude" | "releaseExcluded" | "intersect";
  readonly id?: string;
  readonly arg?: string | readonly string[];
  readonly request?: JsonValue;
  readonly prefixes: readonly string[];
  readonly result?: JsonValue;
  readonly error?: string;
}

function prefixPoolStep(pool: PrefixPool, family: Family, step: PrefixPoolStep): JsonValue | undefined {
  const { op, id = "", arg = [], request } = step;
  const args = typeof arg === "string" ? [arg] : arg;
  switch (op) {
    case "extract": {
      const asked = request === undefined ? undefined : fromJson(ExtraPrefixRequestSchema, request);
      const { src, dst, requested } = pool.extract(id, family, asked);
      return { dst: formatPrefix(dst), requested: requested.map(formatPrefix), src: formatPrefix(src) };
    }
    case "release":
      pool.release(id);
      return undefined;
    case "exclude":
      return args.length === 0 ? [] : pool.exclude(args).map(formatPrefix);
    case "releaseExcluded":
      pool.releaseExcluded(args);
      return undefined;
    case "intersect":
      return args.some((text) => pool.intersects(text));
  }
}

async function checkPrefixPool(vector: {
  readonly config: readonly string[];
  readonly steps: readonly PrefixPoolStep[];
}): Promise<void> {
  const pool = createPrefixPool(vector.config);
  const family = vector.config.some((prefix) => prefix.includes(":")) ? 6 : 4;
  for (const [i, step] of vector.steps.entries()) {
    const ours = await outcomeOf(() => ({ result: prefixPoolStep(pool, family, step) }));
    const found = sameError(ours, step.error === undefined ? undefined : true);
    if (found !== undefined) same(`step ${i} ${step.op}`, found.result, step.result);
    // The recording lists them in the order of their texts now and then; ours is always that of the addresses.
    same(
      `step ${i} ${step.op}: prefixes`,
      pool.prefixes().map(formatPrefix).sort(),
      step.prefixes.toSorted(),
    );
  }
}

/** Kinds whose configuration is one list of prefixes. */
const simpleKind = (kind: Kind, make: (prefixes: readonly string[]) => Ipam) =>
  vectorKind(
    connectionKind((config: readonly string[]) => ({ ipam: make(config) })),
    [
      { record: "D13", differs: (vector) => faultIn(vector, kind) === "mixes-families" },
      { record: "D14", differs: (vector) => faultIn(vector, kind) === "keeps-failed" },
      { record: "D15", differs: (vector) => faultIn(vector, kind) === "loses" },
    ],
  );

describeVectors("ipam.json", {
  point2point: simpleKind("point2point", createPointToPoint),
  singlepoint: simpleKind("singlepoint", createSinglePoint),
  strict: simpleKind("strict", strictPart),
  group: vectorKind(
    connectionKind((config: readonly (readonly string[])[]) => groupOf(config, createPointToPoint)),
  ),
  "group-strict": vectorKind(
    connectionKind((config: readonly (readonly string[])[]) => groupOf(config, strictPart)),
  ),
  vl3: vectorKind(connectionKind(makeVl3), [
    {
      record: "D14",
      differs: ({ steps }) =>
        steps.some(
          ({ op, withDns, result }) =>
            op === "request" &&
            withDns === undefined &&
            result !== undefined &&
            result.srcIpAddrs === undefined,
        ),
    },
  ]),
  "vl3-strict": vectorKind(
    connectionKind((config: Parameters<typeof makeVl3>[0]) => {
      const { parts, ipam } = makeVl3(config);
      return { ipam: createStrictVl3(parts, ipam) };
    }),
  ),
  ippool: vectorKind(checkPool),
  prefixpool: vectorKind(checkPrefixPool),
  "vl3-prefix-server": vectorKind(checkServer, [
    {
      record: "D16",
      differs: ({ streams }) => streams.slice(0, -1).some(({ exchange }) => endsUndefined(exchange)),
    },
  ]),
});
