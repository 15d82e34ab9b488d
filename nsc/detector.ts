/**
 * Decides whether the data path of a wire is dead, from probes and their answers: pure (docs/protocol.md, "Liveness").
 *
 *   silent --answer--> alive --3 probes in a row unanswered--> doubted --any answer--> alive
 *                                                                 \--no answer to the confirming probes--> dead
 *
 * With a loss of 5 % each way a probe goes unanswered with p = 1 - 0.95² = 0.0975. Three in a row, at 20 probes a second, would be a
 * false alarm every minute: 20 · p³ · (1-p) = 1/60 s. So three only raise the doubt, and six more are sent at once: p⁹ = 8·10⁻¹⁰,
 * one false alarm in two years. Where more is lost, more are sent: as many as bring p̂ᵏ below 10⁻⁹, p̂ being the loss of late.
 *
 * A death is noticed after 225 ms at most on a path without delay: 50 until the next probe, 100 for three of them, 25 for the
 * last one's answer, 25 to send the confirming ones and 25 for their answers.
 */

const MISSES = 3;
const CONFIRMATIONS = { least: 6, most: 24 };
/** False alarms per probe. */
const FALSE_ALARM = 1e-9;
/** Answers are waited for at least this long, and never less than twice the slowest of late and this. */
const LEAST_WAIT_MS = 25;
/** Of which the slowest and the loss are taken. */
const REMEMBERED = 256;

export type Verdict =
  /** As far as is known; ask again with the next probe, or at that time. */
  | { readonly kind: "alive"; readonly againAtMs?: number }
  /** Send that many probes in quick succession, then ask again. */
  | { readonly kind: "doubted"; readonly probes: number }
  | { readonly kind: "dead" };

export interface Detector {
  /** A probe leaves: its sequence number. */
  sent(nowMs: number): number;
  answered(sequence: number, nowMs: number): void;
  judge(nowMs: number): Verdict;
  /** Who could not run (or see answers) cannot judge others: probes that wait for an answer do not count. */
  forgive(): void;
  /** Once answered; before that silence means nothing: an endpoint need not answer at all. */
  readonly isArmed: boolean;
  /** While confirming probes are sent and waited for. */
  readonly isDoubted: boolean;
}

interface Probe {
  readonly sequence: number;
  readonly sentMs: number;
}

/** `timeoutMs`: no answer is waited for longer. `isArmed`: the path has answered before. */
export function createDetector(timeoutMs: number, isArmed = false): Detector {
  let next = 0;
  /** Probes after the latest answered one, in order. */
  let waiting: Probe[] = [];
  /** How many of `waiting`, at its end, are to confirm; undefined without doubt. */
  let confirming: number | undefined;
  const sentAt = new Map<number, number>();
  const roundTrips: number[] = [];
  let loss: boolean[] = [];

  const waitMs = () =>
    Math.min(timeoutMs, Math.max(LEAST_WAIT_MS, 2 * Math.max(0, ...roundTrips) + LEAST_WAIT_MS / 2));
  const note = (isLost: boolean, count = 1) => {
    loss = [...loss, ...Array<boolean>(count).fill(isLost)].slice(-REMEMBERED);
  };

  return {
    get isArmed() {
      return isArmed;
    },
    get isDoubted() {
      return confirming !== undefined;
    },
    sent(nowMs) {
      const sequence = next;
      next = (next + 1) % 65_536;
      sentAt.set(sequence, nowMs);
      if (sentAt.size > REMEMBERED) sentAt.delete((sequence - REMEMBERED + 65_536) % 65_536);
      if (isArmed) waiting.push({ sequence, sentMs: nowMs });
      return sequence;
    },
    answered(sequence, nowMs) {
      const sentMs = sentAt.get(sequence);
      if (sentMs === undefined) return;
      sentAt.delete(sequence);
      isArmed = true;
      confirming = undefined;
      roundTrips.push(nowMs - sentMs);
      if (roundTrips.length > 32) roundTrips.shift();
      const before = waiting.length;
      waiting = waiting.filter((probe) => probe.sentMs > sentMs);
      note(true, Math.max(0, before - waiting.length - 1));
      note(false);
    },
    judge(nowMs) {
      if (confirming !== undefined) return verdictOfConfirmation(confirming, nowMs);
      const [last] = waiting.slice(MISSES - 1);
      if (last === undefined) return { kind: "alive" };
      const dueMs = last.sentMs + waitMs();
      if (nowMs < dueMs) return { kind: "alive", againAtMs: dueMs };
      confirming = confirmations(loss);
      return { kind: "doubted", probes: confirming };
    },
    forgive() {
      waiting = [];
      confirming = undefined;
    },
  };

  function verdictOfConfirmation(count: number, nowMs: number): Verdict {
    const last = waiting.at(-1);
    if (last === undefined || waiting.length < MISSES + count) return { kind: "alive" };
    const dueMs = last.sentMs + waitMs();
    return nowMs < dueMs ? { kind: "alive", againAtMs: dueMs } : { kind: "dead" };
  }
}

/** How many more must go unanswered than the three that raised the doubt. */
export function confirmations(loss: readonly boolean[]): number {
  const lost = loss.filter(Boolean).length;
  // As if twenty probes had been seen before: a few losses of a young wire say little.
  const share = Math.max(0.1, (lost + 1) / (loss.length + 20));
  const needed = Math.ceil(Math.log(FALSE_ALARM) / Math.log(share) - 1e-9) - MISSES;
  return Math.min(CONFIRMATIONS.most, Math.max(CONFIRMATIONS.least, needed));
}
