import { chmod, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { failureOf } from "../../test/support/grpc.ts";
import { addToken } from "./state.ts";
import { openLinkStore } from "./store.ts";

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "nsm-links-"));
  onTestFinished(() => rm(path, { recursive: true }));
  return join(path, "proxy");
}
const token = (id: string) => ({ id, hash: "00", expiresMs: 5000 });

test("what was changed is there again, for us alone, whole", async () => {
  const path = await folder();
  const store = await openLinkStore(path);
  await Promise.all(["a", "b", "c"].map((id) => store.update((state) => addToken(state, token(id), 0))));
  expect((await openLinkStore(path)).current()).toEqual(store.current());
  expect(store.current().tokens).toHaveLength(3);
  expect(await readdir(path)).toEqual(["links.json"]);
  expect((await stat(path)).mode & 0o777).toBe(0o700);
  expect((await stat(join(path, "links.json"))).mode & 0o777).toBe(0o600);
});

test("of changes at the same time, each sees those before it", async () => {
  const store = await openLinkStore(await folder());
  const seen: number[] = [];
  const add = (id: string) =>
    store.update((state) => {
      seen.push(state.tokens.length);
      return addToken(state, token(id), 0);
    });
  await Promise.all([add("a"), add("b"), add("c")]);
  expect(seen).toEqual([0, 1, 2]);
});

test("a change that is refused leaves everything as it was, and tells nobody", async () => {
  const store = await openLinkStore(await folder());
  let told = 0;
  store.onChange(() => told++);
  await expect(
    store.update(() => {
      throw new Error("no");
    }),
  ).rejects.toThrow("no");
  expect(told).toBe(0);
  expect(store.current().links).toEqual([]);
});

test("a draft of a process that was killed is removed; a damaged or open file is refused", async () => {
  const path = await folder();
  const store = await openLinkStore(path);
  await store.update((state) => addToken(state, token("a"), 0));
  await writeFile(join(path, "links.json.1234"), "half");
  await openLinkStore(path);
  expect(await readdir(path)).toEqual(["links.json"]);
  await chmod(join(path, "links.json"), 0o644);
  expect(await failureOf(openLinkStore(path))).toMatchObject({ reason: "bad-state" });
  await chmod(join(path, "links.json"), 0o600);
  await writeFile(join(path, "links.json"), "{}");
  expect((await failureOf(openLinkStore(path))).message).toContain("is damaged");
});
