import { expect, test, vi } from "vitest";
import { silentLogger } from "../../sdk/log.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { startSweep } from "./sweep.ts";

const AFTER_MS = 600_000;
const FIRST_MS = AFTER_MS + 30_000;

function build() {
  const clock = createFakeClock();
  const bed = { alone: true as boolean | Error, sweeps: 0 };
  const sweep = startSweep({
    dataplane: { sweep: () => Promise.resolve([`wire-${++bed.sweeps}`]) },
    store: { ids: () => new Set() },
    isAlone: () => (bed.alone instanceof Error ? Promise.reject(bed.alone) : Promise.resolve(bed.alone)),
    clock,
    log: silentLogger,
    afterMs: AFTER_MS,
  });
  return { clock, bed, sweep };
}

test("what nobody claimed is removed once, when the longest token has run out", async () => {
  const { clock, bed } = build();
  await clock.advance(FIRST_MS - 1);
  expect(bed.sweeps).toBe(0);
  await clock.advance(1);
  await vi.waitFor(() => expect(bed.sweeps).toBe(1));
  await clock.advance(10 * AFTER_MS);
  expect(bed.sweeps).toBe(1);
  expect(clock.armed).toBe(0);
});

test.each([false, new Error("no registry")])(
  "beside another forwarder, whose wires they may be, nothing is removed until that is gone (%s)",
  async (alone) => {
    const { clock, bed } = build();
    bed.alone = alone;
    await clock.advance(FIRST_MS + 3 * AFTER_MS);
    expect(bed.sweeps).toBe(0);
    bed.alone = true;
    await clock.advance(AFTER_MS);
    await vi.waitFor(() => expect(bed.sweeps).toBe(1));
  },
);

test("one that is disposed of does nothing any more", async () => {
  const { clock, bed, sweep } = build();
  bed.alone = false;
  await clock.advance(FIRST_MS);
  bed.alone = true;
  sweep[Symbol.dispose]();
  await clock.advance(10 * AFTER_MS);
  expect(bed.sweeps).toBe(0);
});
