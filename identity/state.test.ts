import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createAuthority, createAuthorityState } from "./authority.ts";
import { formatBundle } from "../sdk/spiffe/bundle.ts";
import { loadState } from "./state.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "state-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

const create = () => createAuthorityState("a.test", Date.now());

test("the first start saves what the next one reads; only the last directory is private", async () => {
  const path = join(directory, "lib/nsm/identity");
  const first = await loadState(path, "a.test", create);
  expect(await loadState(path, "a.test", () => Promise.reject(new Error("created again")))).toEqual(first);
  expect(statSync(join(directory, "lib/nsm")).mode & 0o055).toBe(0o055);
  expect(statSync(path).mode & 0o777).toBe(0o700);
});

test("processes that start at once agree on one authority and leave no drafts", async () => {
  const path = join(directory, "state");
  const states = await Promise.all([1, 2, 3].map(() => loadState(path, "a.test", create)));
  expect(new Set(states.map(({ certificate }) => certificate)).size).toBe(1);
  expect(readdirSync(path)).toEqual(["authority.json"]);
});

test("a path that is no directory, or cannot be made, is named", async () => {
  const file = join(directory, "file");
  writeFileSync(file, "");
  await expect(loadState(file, "a.test", create)).rejects.toMatchObject({
    code: "FAILED_PRECONDITION",
    message: expect.stringContaining(file),
  });
  await expect(loadState(join(file, "x"), "a.test", create)).rejects.toThrow(/NSM_IDENTITY_STATE_DIR/);
});

test("the same state gives the same authority: key ids and certificate", async () => {
  const state = await create();
  const [one, two] = await Promise.all([createAuthority(state), createAuthority(state)]);
  expect(formatBundle(one.bundle())).toBe(formatBundle(two.bundle()));
  expect(one.bundle().jwtKeys[0]).not.toHaveProperty("d");
});

test("serial numbers are positive and never repeat; a certificate does not outlive its CA", async () => {
  const authority = await createAuthority(await create());
  const issued = await Promise.all(
    Array.from({ length: 20 }, () => authority.issueX509("spiffe://a.test/x", Date.now(), 1e13)),
  );
  expect(
    new Set(issued.map(({ certificate }) => Buffer.from(certificate).toString("hex").slice(20, 60))).size,
  ).toBe(20);
  expect(issued[0]?.notAfterMs).toBeLessThan(Date.now() + 11 * 365 * 86_400_000);
});
