import { expect, test } from "vitest";
import { createPresence } from "./presence.ts";

test("somebody is present until the last watch ends", () => {
  const presence = createPresence();
  expect(presence.isPresent("a")).toBe(false);
  const [first, second] = [presence.enter("a"), presence.enter("a")];
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  expect(presence.isPresent("a")).toBe(true);
  second[Symbol.dispose]();
  expect(presence.isPresent("a")).toBe(false);
});
