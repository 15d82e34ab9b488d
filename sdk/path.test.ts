import { create, toJson } from "@bufbuild/protobuf";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { ConnectionSchema } from "../api/gen/connection_pb.js";
import type { Connection } from "../api/gen/connection_pb.js";
import { NsmError } from "./errors.ts";
import { earliestExpiry, enterHop, leaveHop, trimPath } from "./path.ts";
import { instantOfMs } from "./rfc3339.ts";

function connection(id: string, index: number, ...segments: readonly string[]): Connection {
  const pathSegments = segments.map((name, i) => ({ name, id: `id-${i}` }));
  return create(ConnectionSchema, { id, path: { index, pathSegments } });
}

const fresh = () => "fresh";
const names = (c: Connection) => c.path?.pathSegments.map((segment) => `${segment.name} ${segment.id}`);

test("a connection without a path begins one with its own id, or a new one", () => {
  const chosen = create(ConnectionSchema, { id: "chosen" });
  expect(enterHop(chosen, "nsc", fresh)).toEqual({ callerIndex: 0, callerId: "chosen" });
  expect([chosen.path?.index, names(chosen)]).toEqual([0, ["nsc chosen"]]);
  const nameless = create(ConnectionSchema, { path: { index: 9 } });
  expect(enterHop(nameless, "nsc", fresh)).toEqual({ callerIndex: 0, callerId: "fresh" });
  expect([nameless.path?.index, nameless.id]).toEqual([0, "fresh"]);
});

test("the next segment is appended, kept or renamed", () => {
  const first = connection("id-0", 0, "nsc");
  expect(enterHop(first, "nsmgr", fresh)).toEqual({ callerIndex: 0, callerId: "id-0" });
  expect([first.path?.index, first.id, names(first)]).toEqual([1, "fresh", ["nsc id-0", "nsmgr fresh"]]);

  const refresh = connection("id-0", 0, "nsc", "nsmgr", "fwd");
  enterHop(refresh, "nsmgr", fresh);
  expect([refresh.id, names(refresh)]).toEqual(["id-1", ["nsc id-0", "nsmgr id-1", "fwd id-2"]]);

  const moved = connection("id-0", 0, "nsc", "other", "fwd");
  enterHop(moved, "nsmgr", fresh);
  expect([moved.id, names(moved)]).toEqual(["fresh", ["nsc id-0", "nsmgr fresh", "fwd id-2"]]);
});

test("the client part of a process stays in the segment of its server part", () => {
  const c = connection("id-0", 0, "nsc");
  enterHop(c, "nsmgr", fresh);
  expect(enterHop(c, "nsmgr", () => "never")).toEqual({ callerIndex: 1, callerId: "fresh" });
  expect(names(c)).toHaveLength(2);
});

test.each([
  ["an index beyond the path", connection("id-0", 1, "nsc"), "path-index"],
  ["the largest index", connection("id-0", 2 ** 32 - 1, "nsc", "nsmgr"), "path-index"],
  ["an id that is not the segment's", connection("other", 0, "nsc"), "path-id"],
  ["no id", connection("", 0, "nsc"), "path-id"],
])("%s is refused and changes nothing", (_, lying, reason) => {
  const before = toJson(ConnectionSchema, lying);
  expect(() => enterHop(lying, "nsmgr", fresh)).toThrow(
    expect.objectContaining({ code: "INVALID_ARGUMENT", reason }),
  );
  expect(toJson(ConnectionSchema, lying)).toEqual(before);
});

test("an answer gets the caller's position back, if it reaches it", () => {
  const answer = connection("beyond", 2, "nsc", "nsmgr", "fwd");
  leaveHop(answer, { callerIndex: 1, callerId: "id-1" });
  expect([answer.id, answer.path?.index]).toEqual(["id-1", 1]);
  for (const lost of [create(ConnectionSchema), connection("x", 0, "nsc")]) {
    expect(() => leaveHop(lost, { callerIndex: 1, callerId: "id-1" })).toThrow(
      expect.objectContaining({ code: "INTERNAL", reason: "path-lost" }),
    );
  }
});

test("trimming cuts behind the index and never grows", () => {
  const c = connection("id-0", 0, "nsc", "nsmgr", "fwd");
  trimPath(c, 9);
  expect(names(c)).toHaveLength(3);
  trimPath(c, 1);
  expect(names(c)).toEqual(["nsc id-0", "nsmgr id-1"]);
  trimPath(create(ConnectionSchema), 0);
});

test("the earliest expiry leaves segments without one out", () => {
  const c = connection("id-0", 0, "nsc", "nsmgr", "fwd");
  const segments = c.path?.pathSegments ?? [];
  expect(c.path && earliestExpiry(c.path)).toBeUndefined();
  for (const [i, ms] of [5000, 4000].entries())
    Object.assign(segments[i] ?? {}, { expires: instantOfMs(ms) });
  expect(c.path && earliestExpiry(c.path)).toBe(4000);
});

test("whatever the path says, a hop answers with its position or one of two refusals", () => {
  const segment = fc.record({ name: fc.constantFrom("", "a", "b", "me"), id: fc.constantFrom("", "1", "2") });
  const wild = fc.record({
    id: fc.constantFrom("", "1", "2"),
    path: fc.option(
      fc.record({
        index: fc.oneof(fc.integer({ min: 0, max: 5 }), fc.constantFrom(2 ** 31, 2 ** 32 - 1)),
        pathSegments: fc.array(segment, { maxLength: 5 }),
      }),
      { nil: undefined },
    ),
  });
  fc.assert(
    fc.property(wild, (input) => {
      const c = create(ConnectionSchema, {
        id: input.id,
        ...(input.path && { path: input.path }),
      });
      let made = 0;
      try {
        const caller = enterHop(c, "me", () => `new-${++made}`);
        const own = c.path?.pathSegments[c.path.index];
        expect([own?.name, own?.id]).toEqual(["me", c.id]);
        expect(made).toBeLessThanOrEqual(1);
        const length = c.path?.pathSegments.length;
        leaveHop(c, caller);
        expect([c.id, c.path?.index]).toEqual([caller.callerId, caller.callerIndex]);
        expect(enterHop(c, "me", () => "not needed")).toEqual(caller);
        expect(c.path?.pathSegments.length).toBe(length);
      } catch (error) {
        if (!(error instanceof NsmError) || !["path-index", "path-id"].includes(error.reason)) throw error;
      }
    }),
    { numRuns: 5000 },
  );
});
