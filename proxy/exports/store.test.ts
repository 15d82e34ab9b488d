import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { openExportStore } from "./store.ts";

function build() {
  const folder = mkdtempSync(join(tmpdir(), "nsm-exports-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  return { folder, directory: join(folder, "proxy"), file: join(folder, "proxy", "exports.json") };
}

const web = { service: "web", domain: "west", acceptEndpoints: false };

test("nothing is exported, and nothing made, until somebody says so", async () => {
  const { folder, directory } = build();
  const store = await openExportStore(directory);
  expect(store.list()).toEqual([]);
  expect(await store.remove("web")).toEqual([]);
  expect(readdirSync(folder)).toEqual([]);
});

test("exports survive a restart, in a file for nobody else", async () => {
  const { directory, file } = build();
  const store = await openExportStore(directory);
  await store.add(web);
  await Promise.all([
    store.add({ ...web, acceptEndpoints: true }),
    store.add({ service: "db@floating", domain: "*", acceptEndpoints: false }),
  ]);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  expect(readdirSync(directory)).toEqual(["exports.json"]);
  const again = await openExportStore(directory);
  expect(again.list()).toEqual([
    { ...web, acceptEndpoints: true },
    { service: "db@floating", domain: "*", acceptEndpoints: false },
  ]);
  expect(again.accepts("web", "west")).toBe(true);
  expect(again.isExported("web", "north")).toBe(false);
  expect(again.isExported("db@floating", "north")).toBe(true);
});

test("who listens is told when it is on disk, and withdrawing one leaves the others", async () => {
  const { directory, file } = build();
  const store = await openExportStore(directory);
  for (const domain of ["west", "north", "*"]) await store.add({ ...web, domain });
  const heard: (readonly [number, boolean])[] = [];
  using listening = store.onChange(() => {
    const saved: unknown = JSON.parse(readFileSync(file, "utf8"));
    const isSaved = JSON.stringify(saved).includes(JSON.stringify(store.list()));
    heard.push([store.list().length, isSaved]);
  });
  void listening;
  expect(await store.remove("web", "west")).toEqual([web]);
  expect(await store.remove("web", "west")).toEqual([]);
  expect(store.isExported("web", "west")).toBe(true); // by *
  expect(await store.remove("web")).toHaveLength(2);
  expect(heard).toEqual([
    [2, true],
    [0, true],
  ]);
  expect((await openExportStore(directory)).list()).toEqual([]);
});

test.for([
  ["", "west"],
  ["a b", "west"],
  ["web@", "west"],
  ["@west", "west"],
  ["a@b@c", "west"],
  ["web\n", "west"],
  ["web", ""],
  ["web", "a@b"],
  ["web", "w*"],
  ["web", "w".repeat(254)],
] as const)("%j to %j is refused", async ([service, domain]) => {
  const store = await openExportStore(build().directory);
  const added = store.add({ service, domain, acceptEndpoints: false });
  await expect(added).rejects.toMatchObject({ reason: "bad-export" });
  expect(store.list()).toEqual([]);
});

test("a damaged file, or one that others may read, is told of", async () => {
  const { directory, file } = build();
  await (await openExportStore(directory)).add(web);
  writeFileSync(file, "{");
  await expect(openExportStore(directory)).rejects.toMatchObject({ reason: "bad-state" });
  rmSync(file);
  writeFileSync(file, '{"version":1,"exports":[]}', { mode: 0o644 });
  await expect(openExportStore(directory)).rejects.toMatchObject({ reason: "bad-state" });
});
