/** Free addresses of one or more prefixes, both families. Pure. */
import { contains, prefixesOf } from "../prefix.ts";
import type { Family, IpAddress, IpRange, Prefix } from "../prefix.ts";

/**
 * Free addresses as ranges.
 *
 * Invariant: the ranges of a family are ordered, and neither overlap nor touch.
 */
export class IpPool {
  readonly #free: Readonly<Record<Family, IpRange[]>> = { 4: [], 6: [] };

  constructor(ranges: Iterable<IpRange> = []) {
    for (const range of ranges) this.add(range);
  }

  /** Makes addresses free. Those that are free already do not count. */
  add({ family, first, last }: IpRange): void {
    const free = this.#free[family];
    const from = indexEndingFrom(free, first - 1n);
    const to = indexStartingAfter(free, last + 1n);
    const touched = free.slice(from, to);
    const merged = {
      family,
      first: lesser(first, touched[0]?.first ?? first),
      last: greater(last, touched.at(-1)?.last ?? last),
    };
    free.splice(from, to - from, merged);
  }

  /** Takes addresses out. Those that are not free do not count. */
  remove({ family, first, last }: IpRange): void {
    const free = this.#free[family];
    const from = indexEndingFrom(free, first);
    const to = indexStartingAfter(free, last);
    const left = free.slice(from, to).flatMap((range) => [
      { family, first: range.first, last: lesser(range.last, first - 1n) },
      { family, first: greater(range.first, last + 1n), last: range.last },
    ]);
    free.splice(from, to - from, ...left.filter((range) => range.first <= range.last));
  }

  /** True when every address of the range is free. */
  has({ family, first, last }: IpRange): boolean {
    const range = this.#free[family][indexEndingFrom(this.#free[family], first)];
    return range !== undefined && range.first <= first && last <= range.last;
  }

  /** The lowest free address outside `excluded` (as `mergeRanges` makes it), IPv4 before IPv6; it stays free. */
  lowest(excluded: readonly IpRange[] = []): IpAddress | undefined {
    return lowestOutside(this.#free[4], excluded) ?? lowestOutside(this.#free[6], excluded);
  }

  /** The lowest free address outside `excluded`, taken out. */
  takeLowest(excluded?: readonly IpRange[]): IpAddress | undefined {
    const address = this.lowest(excluded);
    if (address !== undefined) this.remove(single(address));
    return address;
  }

  /** The two lowest ones; nothing is taken when there is only one. */
  takeLowestTwo(excluded?: readonly IpRange[]): readonly [IpAddress, IpAddress] | undefined {
    const first = this.takeLowest(excluded);
    const second = this.takeLowest(excluded);
    if (first !== undefined && second !== undefined) return [first, second];
    if (first !== undefined) this.free(first);
    return undefined;
  }

  /** Takes this very address; false when it is not free or excluded. */
  take(address: IpAddress, excluded: readonly IpRange[] = []): boolean {
    const range = single(address);
    if (!this.has(range) || excluded.some((other) => contains(other, address))) return false;
    this.remove(range);
    return true;
  }

  /** Gives one address back. */
  free(address: IpAddress): void {
    this.add(single(address));
  }

  /** What is free, as the fewest prefixes, in order. */
  prefixes(): readonly Prefix[] {
    return [...this.#free[4], ...this.#free[6]].flatMap(prefixesOf);
  }

  get isEmpty(): boolean {
    return this.#free[4].length + this.#free[6].length === 0;
  }
}

/** The same addresses in order, without overlaps. */
export function mergeRanges(ranges: readonly IpRange[]): readonly IpRange[] {
  const merged: IpRange[] = [];
  for (const range of [...ranges].sort(byStart)) {
    const before = merged.at(-1);
    if (before === undefined || before.family !== range.family || before.last + 1n < range.first)
      merged.push(range);
    else merged[merged.length - 1] = { ...before, last: greater(before.last, range.last) };
  }
  return merged;
}

function byStart(a: IpRange, b: IpRange): number {
  if (a.family !== b.family) return a.family - b.family;
  return a.first < b.first ? -1 : 1;
}

/** Both lists are in order and are walked once. */
function lowestOutside(free: readonly IpRange[], excluded: readonly IpRange[]): IpAddress | undefined {
  let next = 0;
  for (const { family, first, last } of free) {
    let address = first;
    for (let out = excluded[next]; out !== undefined; out = excluded[++next]) {
      if (out.family === family && out.first > address) break;
      if (out.family === family && out.last >= address) address = out.last + 1n;
      if (address > last) break;
    }
    if (address <= last) return { family, address };
  }
  return undefined;
}

function single({ family, address }: IpAddress): IpRange {
  return { family, first: address, last: address };
}

/** Index of the first range that ends at `address` or later. */
function indexEndingFrom(ranges: readonly IpRange[], address: bigint): number {
  return firstIndex(ranges, ({ last }) => last >= address);
}

/** Index of the first range that starts after `address`. */
function indexStartingAfter(ranges: readonly IpRange[], address: bigint): number {
  return firstIndex(ranges, ({ first }) => first > address);
}

/** Binary search: `isAt` is false up to some index and true from there. */
function firstIndex(ranges: readonly IpRange[], isAt: (range: IpRange) => boolean): number {
  let [low, high] = [0, ranges.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const range = ranges[middle];
    if (range !== undefined && isAt(range)) high = middle;
    else low = middle + 1;
  }
  return low;
}

function lesser(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

function greater(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
