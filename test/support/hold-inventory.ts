/** Hooks of an end-to-end test: nothing is left of any of its tests, nor of its mesh. */
import { afterAll, afterEach, beforeAll, beforeEach } from "vitest";
import { expectNothingLeft, takeInventory, takeSettledInventory } from "./inventory.ts";
import type { Inventory } from "./inventory.ts";
import type { Mesh } from "./mesh.ts";

/** To be called before the `beforeAll` that starts the mesh; ends it. */
export function holdInventory(mesh: () => Mesh): void {
  let empty: Inventory;
  let before: Inventory;
  beforeAll(async () => {
    empty = await takeSettledInventory();
  });
  afterAll(async () => {
    await mesh()[Symbol.asyncDispose]();
    await expectNothingLeft(empty);
  });
  beforeEach(async () => {
    before = await takeInventory();
  });
  afterEach(async () => {
    await expectNothingLeft(before);
  });
}
