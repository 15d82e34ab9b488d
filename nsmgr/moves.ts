/**
 * Which wires of this node's clients are to be made anew because the matches of their service want them elsewhere
 * (docs/protocol.md, "Wires that move").
 *
 *   settled --misfit, outranked--> due --later, still so--> asked --Request--> settled (or due again, with more patience)
 */
import { createDebounce } from "./debounce.ts";
import type { Debounce } from "./debounce.ts";
import type { Clock } from "../sdk/clock.ts";
import type { History } from "../sdk/elements/history.ts";
import type { MonitorStore } from "../sdk/elements/monitor.ts";
import { judge } from "../sdk/judge.ts";
import type { JudgeInput, JudgedWire, Judgement } from "../sdk/judge.ts";
import type { Logger } from "../sdk/log.ts";
import type { FollowedService, RegistryView } from "../sdk/registry/view.ts";
import type { LocalEndpoints } from "./local-endpoints.ts";

/** An edit is rarely alone. */
const DEBOUNCE_MS = 500;
/** A primary that is away for as long as this begins anew to be back, however soon it returns. */
const BREAK_MS = 50;
/** Wires that move together are spread: so much for each of them, and not more for all. */
const SPREAD_MS = 50;
const LONGEST_SPREAD_MS = 10_000;
/** Before a wire is asked once more that was asked in vain; doubled each time. */
const FIRST_PATIENCE_MS = 5000;
const LONGEST_PATIENCE_MS = 10 * 60_000;
/** A wire that leaves those that are preferred so soon after it has returned to them waits twice as long until it returns once more. */
const STEADY_AFTER_MS = 10 * 60_000;
const LONGEST_FAILBACK_MS = 10 * 60_000;
/** A client whose monitor stream is just being opened again hears of it then; one that never listens is closed. */
const HEARD_WITHIN_MS = 5000;

export interface MovesOptions {
  readonly view: Pick<RegistryView, "follow">;
  readonly local: Pick<LocalEndpoints, "published">;
  readonly forwarderService: string;
  readonly store: Pick<MonitorStore, "askForNewChoice" | "remark">;
  readonly history: Pick<History, "note">;
  readonly clock: Clock;
  readonly log: Logger;
  /** From 0 to 1. */
  readonly random: () => number;
  /** How long a preferred endpoint must have been there before wires return to it. */
  readonly failbackMs: number;
}

export interface MovingWire extends JudgedWire {
  readonly id: string;
  readonly service: string;
  /** Closes the connection as if its owner had. */
  readonly close: (why: string) => Promise<void>;
}

export interface Moves extends Disposable {
  /** A wire was made, or refreshed. Returns why it would not be made like this any more and stays nevertheless. */
  keep(wire: MovingWire): string | undefined;
  drop(id: string): void;
}

/** Why a wire moves. */
type Reason = "misfit" | "outranked";

interface Kept {
  readonly wire: MovingWire;
  /** What happens to it later. */
  due: { readonly kind: Reason | "asking"; readonly timer: Disposable } | undefined;
  isAsked: boolean;
  remark: string | undefined;
}

interface ServiceInUse {
  readonly followed: FollowedService;
  readonly ids: Set<string>;
  /** Judges all its wires. */
  readonly debounce: Debounce;
  /** Looks only whether those that are preferred are there still. */
  readonly breaks: Debounce;
}

export function createMoves(options: MovesOptions): Moves {
  const { clock, log, store, history } = options;
  const wires = new Map<string, Kept>();
  const services = new Map<string, ServiceInUse>();
  const patience = new Map<string, number>();
  /** Wires that were asked to return to those that are preferred, and how long these had been there. */
  const returns = new Map<string, { readonly atMs: number; readonly failbackMs: number }>();

  const failbackOf = (id: string): number => {
    const last = returns.get(id);
    if (last === undefined) return options.failbackMs;
    const next = Math.max(options.failbackMs, Math.min(2 * last.failbackMs, LONGEST_FAILBACK_MS));
    // It waits for that long itself before it returns.
    const isSteady = clock.monotonic() - last.atMs >= STEADY_AFTER_MS + next + LONGEST_SPREAD_MS;
    return isSteady ? options.failbackMs : next;
  };
  /** What wires of a service are judged by now; undefined while the registry has not told. */
  const inputOf = (service: string): JudgeInput | undefined => {
    const known = services.get(service)?.followed.known();
    const { forwarderService } = options;
    return known && { ...known, forwarderService, forwarders: options.local.published(forwarderService) };
  };
  const judgeWire = (wire: MovingWire, input = inputOf(wire.service)): Judgement =>
    input === undefined ? { kind: "unknown" } : judge(wire, input);
  const settle = (kept: Kept) => {
    kept.due?.timer[Symbol.dispose]();
    kept.due = undefined;
  };
  const setDue = (kept: Kept, kind: Reason, delayMs: number) => {
    if (kept.isAsked || kept.due?.kind === kind) return;
    settle(kept);
    kept.due = { kind, timer: clock.timer(delayMs, () => move(kept, kind)) };
  };
  const remarkOf = (judgement: Judgement) =>
    judgement.kind === "misfit" && !judgement.elsewhere ? judgement.why : undefined;

  /** `crowd`: wires of the service that are looked at together. */
  const consider = (kept: Kept, judgement: Judgement, crowd: number) => {
    const { id, service, endpoint } = kept.wire;
    const remark = remarkOf(judgement);
    if (remark !== undefined && remark !== kept.remark) {
      log.warn(
        { connection: id, service, nse: endpoint, reason: remark },
        "its service leads it nowhere any more: the wire stays as it is",
      );
      history.note(id, "unmatched", `${remark}; it stays, since nobody else would serve it`);
    }
    kept.remark = remark;
    const spreadMs = options.random() * Math.min(LONGEST_SPREAD_MS, crowd * SPREAD_MS);
    const waitMs = patience.get(id) ?? 0;
    switch (judgement.kind) {
      case "fits":
        patience.delete(id);
        settle(kept);
        return;
      case "unknown":
        settle(kept);
        return;
      case "misfit":
        if (judgement.elsewhere) setDue(kept, "misfit", waitMs + spreadMs);
        else settle(kept);
        return;
      case "outranked":
        setDue(kept, "outranked", Math.max(waitMs, failbackOf(id)) + spreadMs);
    }
  };
  const move = (kept: Kept, kind: Reason) => {
    const { id, service, endpoint } = kept.wire;
    const judgement = judgeWire(kept.wire);
    kept.due = undefined;
    if (judgement.kind !== kind) {
      consider(kept, judgement, 1);
      return;
    }
    const why = judgement.kind === "misfit" ? judgement.why : "outranked";
    log.info({ connection: id, service, nse: endpoint, reason: why }, "wire is to be chosen anew");
    history.note(id, "unmatched", `${why}; its client is asked to choose anew`);
    if (kind === "outranked") returns.set(id, { atMs: clock.monotonic(), failbackMs: failbackOf(id) });
    patience.set(id, Math.min(2 * (patience.get(id) ?? FIRST_PATIENCE_MS / 2), LONGEST_PATIENCE_MS));
    kept.isAsked = true;
    ask(kept, why, clock.monotonic());
  };
  const ask = (kept: Kept, why: string, sinceMs: number) => {
    const { id, close } = kept.wire;
    if (wires.get(id) !== kept) return;
    const heard = store.askForNewChoice(id, why);
    if (heard === "asked") return;
    if (heard === "not-understood" || clock.monotonic() - sinceMs >= HEARD_WITHIN_MS) {
      // Such a client makes it anew once it is told that it is gone.
      void close(`${why}, and its client does not choose anew by itself`);
      return;
    }
    kept.due = { kind: "asking", timer: clock.timer(HEARD_WITHIN_MS / 5, () => ask(kept, why, sinceMs)) };
  };

  const considerAll = (service: string) => {
    const all = [...(services.get(service)?.ids ?? [])].flatMap((id) => wires.get(id) ?? []);
    const input = inputOf(service);
    const judged = all.map((kept) => [kept, judgeWire(kept.wire, input)] as const);
    const crowd = judged.filter(([, { kind }]) => kind === "misfit" || kind === "outranked").length;
    for (const [kept, judgement] of judged) {
      consider(kept, judgement, crowd);
      if (!kept.isAsked) store.remark(kept.wire.id, kept.remark);
    }
  };
  /** The debounce would not see who is away for less time than that. */
  const noticeBreaks = (service: string) => {
    const ids = [...(services.get(service)?.ids ?? [])];
    const returning = ids.flatMap((id) => wires.get(id) ?? []).filter(({ due }) => due?.kind === "outranked");
    if (returning.length === 0) return;
    const input = inputOf(service);
    for (const kept of returning) if (judgeWire(kept.wire, input).kind !== "outranked") settle(kept);
  };
  const use = (service: string): ServiceInUse => {
    const known = services.get(service);
    if (known !== undefined) return known;
    const debounce = createDebounce(clock, DEBOUNCE_MS, () => considerAll(service));
    const breaks = createDebounce(clock, BREAK_MS, () => noticeBreaks(service));
    const followed = options.view.follow(service, () => {
      debounce.trigger();
      breaks.trigger();
    });
    const inUse = { followed, ids: new Set<string>(), debounce, breaks };
    services.set(service, inUse);
    return inUse;
  };
  const forget = (id: string) => {
    const kept = wires.get(id);
    if (kept === undefined) return;
    settle(kept);
    wires.delete(id);
    const inUse = services.get(kept.wire.service);
    inUse?.ids.delete(id);
    if (inUse === undefined || inUse.ids.size > 0) return;
    inUse.debounce[Symbol.dispose]();
    inUse.breaks[Symbol.dispose]();
    inUse.followed[Symbol.dispose]();
    services.delete(kept.wire.service);
  };

  return {
    keep(wire) {
      const before = wires.get(wire.id);
      const isSame = before !== undefined && before.wire.service === wire.service;
      if (!isSame) forget(wire.id);
      else settle(before);
      const kept: Kept = { wire, due: undefined, isAsked: false, remark: before?.remark };
      wires.set(wire.id, kept);
      use(wire.service).ids.add(wire.id);
      consider(kept, judgeWire(wire), 1);
      return kept.remark;
    },
    drop(id) {
      forget(id);
      patience.delete(id);
      returns.delete(id);
    },
    [Symbol.dispose]() {
      for (const id of wires.keys()) forget(id);
    },
  };
}
