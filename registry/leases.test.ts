import * as fc from "fast-check";
import { expect, test } from "vitest";
import { createLeases } from "./leases.ts";

test("each lease ends once, when it is over", () => {
  const leases = createLeases();
  leases.set("a", 1000);
  leases.set("b", 1200);
  leases.set("for ever", undefined);
  expect([...leases.ended(999)]).toEqual([]);
  expect([...leases.ended(1000)]).toEqual(["a"]);
  expect([...leases.ended(5000)]).toEqual(["b"]);
  expect([...leases.ended(1e9)]).toEqual([]);
});

test("whoever stops asking is told of the others the next time", () => {
  const leases = createLeases();
  for (const name of ["a", "b", "c"]) leases.set(name, 700);
  for (const name of leases.ended(1000)) {
    expect(name).toBe("a");
    break;
  }
  expect([...leases.ended(1000)]).toEqual(["b", "c"]);
});

test("whatever is set and renewed, what has ended is what a look at all of them finds", () => {
  const step = fc.oneof(
    fc.record({ name: fc.constantFrom("a", "b", "c"), endMs: fc.option(fc.nat(3000), { nil: undefined }) }),
    fc.record({ nowMs: fc.nat(3000) }),
  );
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const leases = createLeases();
      const model = new Map<string, number>();
      for (const each of steps) {
        if ("name" in each) {
          leases.set(each.name, each.endMs);
          if (each.endMs === undefined) model.delete(each.name);
          else model.set(each.name, each.endMs);
          continue;
        }
        const over = [...model].filter(([, endMs]) => endMs <= each.nowMs).map(([name]) => name);
        for (const name of over) model.delete(name);
        expect([...leases.ended(each.nowMs)].toSorted()).toEqual(over.toSorted());
      }
    }),
  );
});
