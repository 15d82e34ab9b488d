import { expect, test } from "vitest";
import { makeAuthority } from "../../test/support/certificates.ts";
import { createFakeClock } from "../../test/support/fake-clock.ts";
import { makeSource } from "../../test/support/identity.ts";
import { createRenewals } from "./renewal.ts";

async function build(lifetimeMs: number) {
  const authority = await makeAuthority("example.org");
  const source = await makeSource(authority, "/server", { lifetimeMs });
  const clock = createFakeClock(source.current().svid.notAfterMs - lifetimeMs);
  const renewals = createRenewals(source, clock);
  const retired: string[] = [];
  return {
    source,
    clock,
    renewals,
    retired,
    watch: (name: string, own = source.current()) => renewals.watch(own, () => retired.push(name)),
  };
}

test("sessions retire after a renewal, once, in time, and not at once", async () => {
  const { source, clock, retired, watch } = await build(8000);
  watch("a");
  watch("b");
  await clock.advance(4000);
  expect(retired).toEqual([]);
  await source.rotate();
  await clock.advance(499);
  expect(retired).toEqual([]);
  await source.rotate();
  watch("new");
  await clock.advance(501);
  expect(retired.toSorted()).toEqual(["a", "b"]);
  await clock.advance(60_000);
  expect(retired).toHaveLength(2);
});

test("long lives change nothing: ten seconds are enough, and a life that is over has none", async () => {
  const { source, clock, retired, watch } = await build(3_600_000);
  const outdated = source.current();
  watch("long");
  await source.rotate();
  await clock.advance(10_000);
  expect(retired).toEqual(["long"]);
  await clock.advance(3_600_000);
  watch("late handshake", outdated);
  await clock.advance(0);
  expect(retired).toEqual(["long", "late handshake"]);
});

test("a session that ended and a server that stops leave no timer", async () => {
  const { source, clock, renewals, retired, watch } = await build(8000);
  const ended = watch("ended");
  watch("stopped");
  await source.rotate();
  expect(clock.armed).toBe(2);
  ended[Symbol.dispose]();
  expect(clock.armed).toBe(1);
  renewals[Symbol.dispose]();
  await source.rotate();
  expect(clock.armed).toBe(0);
  expect(retired).toEqual([]);
});
