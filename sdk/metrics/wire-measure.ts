/** What who asks for a wire measures: set-up, refreshes, and how long the wire was broken (docs/metrics.md). */
import type { Clock } from "../clock.ts";
import { codeOf } from "../errors.ts";
import { meters } from "./meters.ts";

/**
 * Why a wire is made anew: `down` the manager said so, `dead` the probes, `process-ended` the endpoint's process, `gone` every answer for a while was
 * that the way is gone, `lease` it ran out.
 */
export type HealReason = "down" | "dead" | "process-ended" | "gone" | "lease";

/** What a Request is for: the first of a wire, its refresh, a new wire in place of a broken one, another way for one that works. */
export type RequestKind = "first" | "refresh" | "heal" | "move";

export interface WireMeasure {
  /** Times one Request, and passes on what it gives or throws. */
  request<T>(kind: RequestKind, ask: () => Promise<T>): Promise<T>;
  /** The wire is broken since now; the first reason counts until it is healed. */
  broken(reason: HealReason): void;
  /** A new wire is there in place of the broken one. */
  healed(): void;
  /** A refresh that was due `lateMs` ago begins. */
  refreshDue(lateMs: number): void;
}

export function measureWire(clock: Pick<Clock, "monotonic">): WireMeasure {
  let firstAskMs: number | undefined;
  let fault: { readonly reason: HealReason; readonly sinceMs: number } | undefined;
  const secondsSince = (ms: number) => (clock.monotonic() - ms) / 1000;
  return {
    async request(kind, ask) {
      const startMs = clock.monotonic();
      if (kind === "first") firstAskMs ??= startMs;
      try {
        const result = await ask();
        if (kind === "refresh") meters.refresh.observe({ code: "OK" }, secondsSince(startMs));
        if (kind === "first") meters.setup.observe({ code: "OK" }, secondsSince(firstAskMs ?? startMs));
        firstAskMs = undefined;
        return result;
      } catch (error) {
        const meter = kind === "refresh" || kind === "move" ? meters.refresh : meters.setup;
        meter.observe({ code: codeOf(error) }, secondsSince(startMs));
        throw error;
      }
    },
    broken(reason) {
      fault ??= { reason, sinceMs: clock.monotonic() };
    },
    healed() {
      if (fault === undefined) return;
      meters.heals.inc({ reason: fault.reason });
      meters.healGap.observe({ reason: fault.reason }, secondsSince(fault.sinceMs));
      fault = undefined;
    },
    refreshDue: (lateMs) => meters.refreshLag.observe({}, Math.max(0, lateMs) / 1000),
  };
}
