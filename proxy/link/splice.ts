/** Two connections as one: what comes in by either goes out by the other, and both end together. */
import type { Duplex } from "node:stream";

/** Destroys both when one of them ends or fails. */
export function splice(a: Duplex, b: Duplex): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.on("error", () => from.destroy());
    from.once("close", () => to.destroy());
    if (from.destroyed) to.destroy();
    from.pipe(to);
  }
}
