/**
 * Which fault of Go's address management a recording shows: the recording is what a plain model gives that has the faults, and
 * not what the same model gives without them. Kinds `point2point`, `singlepoint` and `strict`.
 */
import { isDeepStrictEqual } from "node:util";
import { bitsOf, contains, formatPrefix, parsePrefix, rangeOf } from "../../sdk/prefix.ts";
import type { IpAddress, IpRange, Prefix } from "../../sdk/prefix.ts";
import type { VectorError } from "./support.ts";

export interface RecordedRoute {
  readonly prefix?: string;
  readonly nextHop?: string;
}

export interface RecordedContext {
  readonly srcIpAddrs?: readonly string[];
  readonly dstIpAddrs?: readonly string[];
  readonly srcRoutes?: readonly RecordedRoute[];
  readonly dstRoutes?: readonly RecordedRoute[];
  readonly excludedPrefixes?: readonly string[];
}

export interface RecordedStep {
  readonly op: string;
  readonly id: string;
  readonly ipContext: RecordedContext | null;
  readonly withDns?: true;
  readonly result?: RecordedContext;
  readonly error?: VectorError;
}

export interface RecordedCase {
  readonly config: readonly string[];
  readonly steps: readonly RecordedStep[];
}

export type Kind = "point2point" | "singlepoint" | "strict";

/**
 * `mixes-families`: IPv4 is part of IPv6. `keeps-failed`: a failed request's addresses are freed, but the connection still
 * has them. `loses`: excluded addresses that allocation passes over, the endpoint's own one too, and single addresses of a pair, never come back.
 */
export type Fault = "mixes-families" | "keeps-failed" | "loses";

const FAULTS: readonly Fault[] = ["mixes-families", "keeps-failed", "loses"];

/** The fault without which the recording would be another; undefined when none is to be seen. */
export function faultIn(vector: RecordedCase, kind: Kind): Fault | undefined {
  if (vector.config.length === 0 || !reproduces(vector, kind, FAULTS) || reproduces(vector, kind, []))
    return undefined;
  const alone = FAULTS.find((fault) => !reproduces(vector, kind, without(fault)));
  return alone ?? "keeps-failed";
}

function without(fault: Fault): readonly Fault[] {
  return FAULTS.filter((other) => other !== fault);
}

function reproduces({ config, steps }: RecordedCase, kind: Kind, faults: readonly Fault[]): boolean {
  const model = new Model(config, kind, faults);
  return steps.every((step) => {
    if (step.op !== "close") return isDeepStrictEqual(model.request(step), toContext(step.result));
    model.close(step.id);
    return true;
  });
}

interface Entry {
  readonly pool: number;
  readonly src: bigint;
  readonly dst: bigint | undefined;
  readonly singles: readonly string[];
}

interface Context {
  src: string[];
  dst: string[];
  srcRoutes: string[];
  dstRoutes: string[];
}

/** Sets of taken addresses; a failed request without faults is undone by putting the former state back. */
class Model {
  readonly #pools: readonly Prefix[];
  readonly #kind: Kind;
  readonly #faults: ReadonlySet<Fault>;
  /** `pool number/address`. Also what is lost. */
  #taken = new Set<string>();
  #entries = new Map<string, Entry>();
  #held = new Map<string, readonly string[]>();
  /** The endpoint's own addresses, by pool (`singlepoint`). */
  readonly #own = new Map<number, bigint>();

  constructor(config: readonly string[], kind: Kind, faults: readonly Fault[]) {
    this.#pools = config.map((text) => parsePrefix(text)).filter((prefix) => prefix !== undefined);
    this.#kind = kind;
    this.#faults = new Set(faults);
  }

  /** The answer; undefined when the request fails. */
  request(step: RecordedStep): Context | undefined {
    const [taken, entries] = [new Set(this.#taken), new Map(this.#entries)];
    const context = toContext(step.ipContext ?? {}) ?? { src: [], dst: [], srcRoutes: [], dstRoutes: [] };
    if (this.#kind === "strict") this.#dropTaken(context);
    const excluded = this.#exclusions(step.ipContext?.excludedPrefixes ?? []);
    const isNew = this.#serve(step.id, context, excluded);
    const fails = isNew === undefined || step.op === "request-fails";
    if (fails && isNew === true && this.#faults.has("keeps-failed")) this.#free(step.id);
    if (fails && !this.#faults.has("keeps-failed")) {
      for (const [pool, address] of this.#own) taken.add(`${pool}/${address}`);
      [this.#taken, this.#entries] = [taken, entries];
    }
    if (fails) return undefined;
    this.#hold(step.id, context);
    return context;
  }

  close(id: string): void {
    this.#free(id);
    this.#entries.delete(id);
    this.#held.delete(id);
  }

  /** True for a new allocation, undefined when there is no address. */
  #serve(id: string, context: Context, excluded: readonly IpRange[]): boolean | undefined {
    const known = this.#entries.get(id);
    const isKept = known !== undefined && !this.#touches(known, excluded);
    if (known !== undefined && !isKept) {
      drop(context, this.#texts(known));
      this.#free(id);
    }
    const entry = isKept ? known : this.#allocate(context, excluded);
    if (entry === undefined) return undefined;
    this.#entries.set(id, entry);
    const [src, dst] = this.#texts(entry);
    add(context.src, src);
    if (dst === undefined) return !isKept;
    add(context.srcRoutes, dst);
    add(context.dst, dst);
    add(context.dstRoutes, src);
    return !isKept;
  }

  #allocate(context: Context, excluded: readonly IpRange[]): Entry | undefined {
    if (this.#kind === "singlepoint") return this.#allocateSingle(excluded);
    const singles: string[] = [];
    if (context.src.length > 0 && context.dst.length > 0) {
      for (const pool of this.#pools.keys()) {
        const src = this.#takeFirst(pool, context.src, excluded);
        const dst = this.#takeFirst(pool, context.dst, excluded);
        if (src !== undefined && dst !== undefined) return { pool, src, dst, singles };
        for (const address of [src, dst]) if (address !== undefined) singles.push(`${pool}/${address}`);
      }
    }
    for (const pool of this.#pools.keys()) {
      const dst = this.#lowest(pool, excluded, undefined);
      const src = dst === undefined ? undefined : this.#lowest(pool, excluded, dst + 1n);
      if (dst === undefined || src === undefined) continue;
      this.#taken.add(`${pool}/${dst}`).add(`${pool}/${src}`);
      return { pool, src, dst, singles };
    }
    return undefined;
  }

  #allocateSingle(excluded: readonly IpRange[]): Entry | undefined {
    for (const pool of this.#pools.keys()) {
      if (this.#isOwnExcluded(pool, excluded)) this.#own.delete(pool);
      const own = this.#own.get(pool) ?? this.#pull(pool, excluded);
      if (own !== undefined) this.#own.set(pool, own);
      const src = this.#pull(pool, excluded);
      if (src !== undefined) return { pool, src, dst: undefined, singles: [] };
    }
    return undefined;
  }

  #pull(pool: number, excluded: readonly IpRange[]): bigint | undefined {
    const address = this.#lowest(pool, excluded, undefined);
    if (address !== undefined) this.#taken.add(`${pool}/${address}`);
    if (!this.#faults.has("loses")) return address;
    const { first, last } = this.#range(pool);
    for (let passed = first; passed < (address ?? last + 1n); passed++) this.#taken.add(`${pool}/${passed}`);
    return address;
  }

  /** The lowest free address from `from` on. */
  #lowest(pool: number, excluded: readonly IpRange[], from: bigint | undefined): bigint | undefined {
    const { family, first, last } = this.#range(pool);
    for (let address = from ?? first; address <= last; address++) {
      const out = excluded.find((range) => contains(range, { family, address }));
      if (out !== undefined) address = out.last;
      else if (!this.#taken.has(`${pool}/${address}`)) return address;
    }
    return undefined;
  }

  #takeFirst(pool: number, texts: readonly string[], excluded: readonly IpRange[]): bigint | undefined {
    const free = texts
      .map((text) => parsePrefix(text))
      .find(
        (ip) =>
          ip !== undefined &&
          contains(this.#range(pool), ip) &&
          !this.#taken.has(`${pool}/${ip.address}`) &&
          !excluded.some((range) => contains(range, ip)),
      );
    if (free !== undefined) this.#taken.add(`${pool}/${free.address}`);
    return free?.address;
  }

  #free(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    const addresses = [entry.src, ...(entry.dst === undefined ? [] : [entry.dst])];
    for (const address of addresses) this.#taken.delete(`${entry.pool}/${address}`);
    if (!this.#faults.has("loses")) for (const key of entry.singles) this.#taken.delete(key);
  }

  /** What strict takes out before: addresses of no pool, and those that a connection has. */
  #dropTaken(context: Context): void {
    const held = [...this.#held.values()].flat();
    const isForeign = (text: string) => {
      const ip = parsePrefix(text);
      if (ip === undefined || held.includes(keyOf(ip))) return true;
      return !this.#pools.some((prefix) => contains(rangeOf(prefix), ip));
    };
    const foreignSrc = context.src.filter(isForeign);
    const foreignDst = context.dst.filter(isForeign);
    for (const text of foreignSrc) drop(context, [text, undefined]);
    for (const text of foreignDst) drop(context, [undefined, text]);
  }

  #hold(id: string, { src, dst }: Context): void {
    this.#held.delete(id);
    const others = [...this.#held.values()].flat();
    const ips = [...src, ...dst].map((text) => parsePrefix(text)).filter((ip) => ip !== undefined);
    const ours = ips.filter((ip) => this.#pools.some((prefix) => contains(rangeOf(prefix), ip))).map(keyOf);
    this.#held.set(
      id,
      ours.filter((key) => !others.includes(key)),
    );
  }

  #exclusions(texts: readonly string[]): readonly IpRange[] {
    const ranges = texts
      .map((text) => parsePrefix(text))
      .filter((prefix) => prefix !== undefined)
      .map(rangeOf);
    if (!this.#faults.has("mixes-families")) return ranges;
    return ranges.concat(ranges.filter(coversIpv4).map(() => rangeOf({ family: 4, address: 0n, length: 0 })));
  }

  #touches({ pool, src, dst }: Entry, excluded: readonly IpRange[]): boolean {
    const { family } = this.#range(pool);
    if (this.#isOwnExcluded(pool, excluded)) return true;
    return [src, dst ?? src].some((address) =>
      excluded.some((range) => contains(range, { family, address })),
    );
  }

  /** With the fault the endpoint's own address moves, and the client's with it; the former one is lost. */
  #isOwnExcluded(pool: number, excluded: readonly IpRange[]): boolean {
    const address = this.#own.get(pool);
    const { family } = this.#range(pool);
    if (address === undefined || !this.#faults.has("loses")) return false;
    return excluded.some((range) => contains(range, { family, address }));
  }

  /** Client's and endpoint's address as they stand in the context. */
  #texts({ pool, src, dst }: Entry): readonly [string, string | undefined] {
    const { family } = this.#range(pool);
    const length = this.#kind === "singlepoint" ? (this.#pools[pool]?.length ?? 0) : bitsOf(family);
    const text = (address: bigint) => formatPrefix({ family, address, length });
    return [text(src), dst === undefined ? undefined : text(dst)];
  }

  /** Without the broadcast address of IPv4 where it is not used. */
  #range(pool: number): IpRange {
    const range = rangeOf(this.#pools[pool] ?? { family: 4, address: 0n, length: 32 });
    return this.#kind === "singlepoint" && range.family === 4 ? { ...range, last: range.last - 1n } : range;
  }
}

/** `::ffff:0:0/96` and what holds it. */
function coversIpv4({ family, first, last }: IpRange): boolean {
  return family === 6 && first <= 0xffffn << 32n && last >= 0xffff_ffff_ffffn;
}

function toContext(recorded: RecordedContext | undefined): Context | undefined {
  if (recorded === undefined) return undefined;
  const prefixes = (routes: readonly RecordedRoute[] = []) => routes.map(({ prefix = "" }) => prefix);
  return {
    src: [...(recorded.srcIpAddrs ?? [])],
    dst: [...(recorded.dstIpAddrs ?? [])],
    srcRoutes: prefixes(recorded.srcRoutes),
    dstRoutes: prefixes(recorded.dstRoutes),
  };
}

function drop(context: Context, [src, dst]: readonly [string | undefined, string | undefined]): void {
  context.src = context.src.filter((text) => text !== src);
  context.dstRoutes = context.dstRoutes.filter((text) => text !== src);
  context.dst = context.dst.filter((text) => text !== dst);
  context.srcRoutes = context.srcRoutes.filter((text) => text !== dst);
}

function add(list: string[], text: string): void {
  if (!list.includes(text)) list.push(text);
}

function keyOf({ family, address }: IpAddress): string {
  return `${family}/${address}`;
}
