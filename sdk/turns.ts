/** Turn taking among candidates: round robin, in proportion to weights (docs/protocol.md, "Matching"). Pure. */

export interface Weighted {
  /** Whole number, at least 1. */
  readonly weight: number;
  readonly endpoint: { readonly name: string };
}

/**
 * The candidates in the order of one turn: the one whose turn it is, then the others round the circle. An endpoint that is there twice
 * is tried once.
 *
 * Over as many turns as the weights sum up to (after division by their common divisor), each is first exactly as often as its
 * weight says, well mixed; with equal weights the turns simply go round.
 */
export function orderByTurn<T extends Weighted>(candidates: readonly T[], turn: number): readonly T[] {
  const first = whoseTurn(candidates, turn);
  const circle = [...candidates.slice(first), ...candidates.slice(0, first)];
  const seen = new Set<string>();
  return circle.filter(({ endpoint: { name } }) => !seen.has(name) && seen.add(name));
}

function whoseTurn(candidates: readonly Pick<Weighted, "weight">[], turn: number): number {
  const divisor = candidates.reduce((common, { weight }) => gcd(common, BigInt(weight)), 0n);
  const shares = candidates.map(({ weight }) => BigInt(weight) / (divisor === 0n ? 1n : divisor));
  const total = shares.reduce((sum, share) => sum + share, 0n);
  if (total === 0n) return 0;
  const slot = (BigInt(turn) * strideOf(total, shares)) % total;
  let end = 0n;
  return shares.findIndex((share) => slot < (end += share));
}

/**
 * Slots are visited in steps prime to their number, so that each is visited once a cycle. Steps near the golden section
 * spread the visits of one candidate evenly; equal shares go in order.
 */
function strideOf(total: bigint, shares: readonly bigint[]): bigint {
  if (shares.every((share) => share === 1n)) return 1n;
  let stride = (total * 618n) / 1000n || 1n;
  while (gcd(stride, total) !== 1n) stride++;
  return stride;
}

function gcd(a: bigint, b: bigint): bigint {
  return b === 0n ? a : gcd(b, a % b);
}

/** Turn counters by service name, of one process. */
export interface Turns {
  /** Candidates to try for one Request. Each one taken uses up a turn of the service, also when it fails. */
  tries<T extends Weighted>(service: string, candidates: readonly T[]): Iterable<T>;
  /** Forgets a service that is gone. */
  forget(service: string): void;
}

export function createTurns(): Turns {
  const turns = new Map<string, number>();
  return {
    *tries(service, candidates) {
      for (const candidate of orderByTurn(candidates, turns.get(service) ?? 0)) {
        turns.set(service, ((turns.get(service) ?? 0) + 1) % Number.MAX_SAFE_INTEGER);
        yield candidate;
      }
    },
    forget: (service) => turns.delete(service),
  };
}
