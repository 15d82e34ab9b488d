import { expect, test } from "vitest";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { createWaitingRoom, holderOf } from "./waiting-room.ts";
import type { Guest } from "./waiting-room.ts";

function openRoom(places: number) {
  const clock = createFakeClock();
  const room = createWaitingRoom(places, clock);
  const gone: string[] = [];
  const enter = (name: string, holder: string, given: Partial<Guest> = {}) =>
    room.admit({ holder, isSilent: () => true, dismiss: () => gone.push(name), ...given });
  return { clock, gone, enter };
}

test("whoever holds the most places gives way to a newcomer at once", () => {
  const { gone, enter } = openRoom(4);
  for (const name of ["a1", "a2", "a3", "b1"]) expect(enter(name, name.charAt(0))).toBeDefined();
  expect(enter("c1", "c")).toBeDefined();
  expect(gone).toEqual(["a1"]);
  expect(enter("a4", "a")).toBe(undefined); // its own are as young
  expect(enter("d1", "d")).toBeDefined();
  expect(gone).toEqual(["a1", "a2"]);
  expect(enter("e1", "e")).toBe(undefined); // one each
});

test("among equals one that is silent gives way after a moment, one that is slow later", async () => {
  const { clock, gone, enter } = openRoom(2);
  enter("spoke", "a", { isSilent: () => false });
  enter("silent", "b");
  expect(enter("c1", "c")).toBe(undefined);
  await clock.advance(101);
  expect(enter("c1", "c")).toBeDefined();
  expect(gone).toEqual(["silent"]);
  await clock.advance(400);
  expect(enter("d1", "d")).toBeDefined();
  expect(gone).toEqual(["silent", "c1"]);
  expect(enter("e1", "e")).toBeDefined();
  expect(gone).toEqual(["silent", "c1", "spoke"]);
});

test("a holder's newcomers take the places of its own guests, and nobody else's", async () => {
  const { clock, gone, enter } = openRoom(3);
  enter("b1", "b");
  enter("a1", "a");
  enter("a2", "a");
  await clock.advance(1000);
  for (const name of ["a3", "a4"]) enter(name, "a");
  expect(gone).toEqual(["a1", "a2"]);
});

test("nobody is sent away for whom somebody works, and a place that was given back is free", () => {
  const { gone, enter } = openRoom(2);
  const isBusy = () => true;
  const first = enter("a1", "a", { isBusy });
  enter("a2", "a", { isBusy });
  expect(enter("b1", "b")).toBe(undefined);
  first?.[Symbol.dispose]();
  expect(enter("b1", "b")).toBeDefined();
  expect(gone).toEqual([]);
});

test.for([
  ["192.0.2.1", "192.0.2.1"],
  ["::ffff:192.0.2.1", "192.0.2.1"],
  ["2001:db8:0:1:2:3:4:5", "2001:db8:0:1::"],
  ["fe80::1%eth0", "fe80::1%eth0"],
  [undefined, ""],
] as const)("%s is counted as %s", ([address, holder]) => {
  expect(holderOf(address)).toBe(holder);
});
