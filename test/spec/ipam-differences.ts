/**
 * Where Go's address management goes wrong in a recording: the symptoms, found in the recording itself.
 *
 * Two open connections have one address (D14); a free address is passed over or the pool called empty (D15).
 */
import { contains, formatPrefix, hostPrefix, overlaps, parsePrefix, rangeOf } from "../../sdk/prefix.ts";
import type { IpAddress, IpRange } from "../../sdk/prefix.ts";
import type { VectorError } from "./support.ts";

export interface RecordedContext {
  readonly srcIpAddrs?: readonly string[];
  readonly dstIpAddrs?: readonly string[];
  readonly srcRoutes?: readonly { readonly prefix?: string }[];
  readonly dstRoutes?: readonly { readonly prefix?: string }[];
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

/** Sequences of a kind whose configuration is a list of prefixes. */
export interface RecordedCase {
  readonly config: readonly string[];
  readonly steps: readonly RecordedStep[];
}

const IPV4_MAPPED = parsePrefix("::ffff:0:0/96");

/** An IPv6 exclusion that covers the IPv4-mapped range empties an IPv4 pool. */
export function excludesAcrossFamilies({ config, steps }: RecordedCase): boolean {
  const isIpv4 = config.every((prefix) => !prefix.includes(":"));
  return isIpv4 && steps.some(({ ipContext, error }) => error !== undefined && coversMapped(ipContext));
}

function coversMapped(context: RecordedContext | null): boolean {
  return rangesOf(context?.excludedPrefixes).some(
    (range) => IPV4_MAPPED !== undefined && overlaps(range, rangeOf(IPV4_MAPPED)),
  );
}

/** A request is given an address that another open connection was given. */
export function sharesAddress({ config, steps }: RecordedCase): boolean {
  const ours = rangesOf(config);
  return walk(steps).some(({ step, held }) => {
    const others = [...held].filter(([id]) => id !== step.id).flatMap(([, addresses]) => addresses);
    return given(step, ours).some((address) => others.includes(address));
  });
}

/** A request is given an address, or none, though a lower one of the same prefix is free and known from the case. */
export function passesOver({ config, steps }: RecordedCase, perRequest: 1 | 2): boolean {
  const ours = rangesOf(config);
  const named = [...new Set(steps.flatMap(namedIn))]
    .map((text) => parsePrefix(text))
    .filter((p) => p !== undefined);
  return walk(steps).some(({ step, held, brought }) => {
    if (step.op === "close") return false;
    const taken = [...held.values(), ...brought.values()].flat();
    const excluded = rangesOf(step.ipContext?.excludedPrefixes);
    const free = named.filter(
      (address) =>
        !taken.includes(keyOf(address)) &&
        !excluded.some((range) => contains(range, address)) &&
        !(perRequest === 1 && ours.some((range) => isKept(range, address))),
    );
    const known = [...(held.get(step.id) ?? []), ...keysOf(addressesIn(step.ipContext))];
    const fresh = given(step, ours).filter((address) => !known.includes(address));
    const candidates = ours.map((range) => free.filter((address) => contains(range, address)));
    if (step.result === undefined) {
      const isEmpty = JSON.stringify(step.error ?? "").includes("empty");
      return isEmpty && candidates.some((list) => list.length >= perRequest);
    }
    if (fresh.length < perRequest) return false;
    const at = candidates.findIndex((_, i) => fresh.some((address) => isIn(ours[i], address)));
    const lowest = fresh.map(numberOf).reduce((a, b) => (a < b ? a : b), 1n << 128n);
    return candidates.some(
      (list, i) =>
        (i < at && list.length >= perRequest) || (i === at && list.some(({ address }) => address < lowest)),
    );
  });
}

/** The endpoint's own address, and broadcast, in kind `singlepoint`. */
function isKept({ family, first, last }: IpRange, { address }: IpAddress): boolean {
  return address === first || (family === 4 && address === last);
}

interface Moment {
  readonly step: RecordedStep;
  /** Addresses that open connections were given, by id. */
  readonly held: ReadonlyMap<string, readonly string[]>;
  /** Addresses that open connections brought. */
  readonly brought: ReadonlyMap<string, readonly string[]>;
}

/** Every step with what is open before it. */
function walk(steps: readonly RecordedStep[]): readonly Moment[] {
  const held = new Map<string, readonly string[]>();
  const brought = new Map<string, readonly string[]>();
  return steps.map((step) => {
    const moment = { step, held: new Map(held), brought: new Map(brought) };
    if (step.op === "close") for (const map of [held, brought]) map.delete(step.id);
    if (step.result !== undefined) {
      held.set(step.id, given(step));
      brought.set(step.id, keysOf([...addressesIn(step.ipContext)]));
    }
    return moment;
  });
}

/** What the address management itself added: addresses that have a route at the other side, or the network's length. */
function given({ result, ipContext }: RecordedStep, within?: readonly IpRange[]): readonly string[] {
  const routes = [...(result?.srcRoutes ?? []), ...(result?.dstRoutes ?? [])].map(({ prefix }) => prefix);
  const before = addressesIn(ipContext);
  const texts = addressesIn(result).filter((text) => routes.includes(text) || !before.includes(text));
  return keysOf(texts).filter((key) => within === undefined || within.some((range) => isIn(range, key)));
}

function namedIn({ ipContext, result }: RecordedStep): readonly string[] {
  const edges = rangesOf(ipContext?.excludedPrefixes).flatMap(({ family, first, last }) =>
    [first, last].map((address) => keyOf({ family, address })),
  );
  return [...edges, ...keysOf([...addressesIn(ipContext), ...addressesIn(result)])];
}

function addressesIn(context: RecordedContext | null | undefined): readonly string[] {
  return [...(context?.srcIpAddrs ?? []), ...(context?.dstIpAddrs ?? [])];
}

function rangesOf(texts: readonly string[] = []): readonly IpRange[] {
  return texts
    .map((text) => parsePrefix(text))
    .filter((prefix) => prefix !== undefined)
    .map(rangeOf);
}

/** Addresses as one text each, whatever length they are written with. */
function keysOf(texts: readonly string[]): readonly string[] {
  return texts
    .map((text) => parsePrefix(text))
    .filter((prefix) => prefix !== undefined)
    .map(keyOf);
}

function keyOf(address: IpAddress): string {
  return formatPrefix(hostPrefix(address));
}

function isIn(range: IpRange | undefined, key: string): boolean {
  const prefix = parsePrefix(key);
  return range !== undefined && prefix !== undefined && contains(range, prefix);
}

function numberOf(key: string): bigint {
  return parsePrefix(key)?.address ?? 0n;
}
