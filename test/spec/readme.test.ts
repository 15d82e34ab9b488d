/** README.md of this folder: every scenario has a test that exists, or a reason. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";

const root = dirname(dirname(import.meta.dirname));
const readme = readFileSync(join(import.meta.dirname, "README.md"), "utf8");
const rows = readme
  .split("\n")
  .filter((line) => line.startsWith("| ") && !/^\| (scenario|area) \|/.test(line))
  .map((line) => {
    const [, scenario = "", ours = ""] = /^\| (.+?) \| (.+) \|$/.exec(line) ?? [];
    return { scenario, ours };
  });

/** Titles by file: each title belongs to the file before it. */
function referencesOf(ours: string): readonly { file: string; title: string }[] {
  let file = "";
  return [...ours.matchAll(/`([\w./-]+\.test\.ts)`|"([^"]+)"/g)].flatMap(([, path, title]) => {
    if (path !== undefined) file = path;
    return title === undefined ? [] : [{ file, title }];
  });
}

test("the table is read", () => {
  expect(rows.length).toBeGreaterThan(60);
  expect(rows.filter(({ scenario }) => scenario === "")).toEqual([]);
});

test.for(rows)("$scenario", ({ ours }) => {
  const references = referencesOf(ours);
  if (ours.startsWith("left out: ")) return;
  expect(references).not.toEqual([]);
  const missing = references.filter(({ file, title }) => {
    const path = join(root, file);
    return !existsSync(path) || !readFileSync(path, "utf8").includes(title);
  });
  expect(missing).toEqual([]);
});
