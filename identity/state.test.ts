import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openState } from "./state.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "state-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

test("what is saved is what the next start reads; only the last directory is private, and no draft stays", async () => {
  const path = join(directory, "lib/nsm/identity");
  const first = await openState(path, "a.test");
  await first.save({ ...first.current, sequence: "18446744073709551615" });
  expect((await openState(path, "a.test")).current).toEqual(first.current);
  expect(first.current.sequence).toBe("18446744073709551615");
  expect(statSync(join(directory, "lib/nsm")).mode & 0o055).toBe(0o055);
  expect(statSync(path).mode & 0o777).toBe(0o700);
  expect(statSync(join(path, "authority.json")).mode & 0o777).toBe(0o600);
  expect(readdirSync(path)).toEqual(["authority.json"]);
});

test("a path that is no directory, or cannot be made, is named", async () => {
  const file = join(directory, "file");
  writeFileSync(file, "");
  await expect(openState(file, "a.test")).rejects.toMatchObject({
    code: "FAILED_PRECONDITION",
    message: expect.stringContaining(file),
  });
  await expect(openState(join(file, "x"), "a.test")).rejects.toThrow(/NSM_IDENTITY_STATE_DIR/);
});
