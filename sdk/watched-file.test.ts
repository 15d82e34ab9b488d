import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as z from "zod";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createFakeClock } from "../test/support/fake-clock.ts";
import { eventually } from "../test/support/netns.ts";
import { systemClock } from "./clock.ts";
import { NsmError } from "./errors.ts";
import { createLogger, silentLogger } from "./log.ts";
import { openWatchedFile } from "./watched-file.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "watched-"));
  path = join(folder, "file");
});
afterEach(() => rmSync(folder, { recursive: true }));

function parse(text: string): string {
  if (text.startsWith("bad")) throw new NsmError("INVALID_ARGUMENT", "bad-file", "it is bad");
  return text;
}

function messageIn(line: string): string {
  return z.object({ msg: z.string() }).parse(JSON.parse(line)).msg;
}

const options = () => ({ path, what: "words", parse, log: silentLogger, clock: systemClock });

test("what is written or moved in place counts, and listeners hear of it", async () => {
  writeFileSync(path, "one");
  await using file = await openWatchedFile(options());
  let changes = 0;
  using heard = file.onChange(() => changes++);
  void heard;
  expect(file.current()).toBe("one");

  writeFileSync(path, "two");
  await eventually("the second text", () => file.current() === "two");
  writeFileSync(join(folder, "new"), "three");
  renameSync(join(folder, "new"), path);
  await eventually("the third text", () => file.current() === "three");
  expect(changes).toBe(2);
});

test("without notifications the file is compared every five seconds", async () => {
  const clock = createFakeClock();
  path = join(folder, "later", "file"); // no such directory: nothing to watch
  await using file = await openWatchedFile({ ...options(), clock, missing: "none" });
  expect(file.current()).toBe("none");
  mkdirSync(join(folder, "later"));
  writeFileSync(path, "one");
  await clock.advance(5000);
  await eventually("the text", () => file.current() === "one");
});

test("a file that becomes wrong leaves the last good value in force, and is complained about once", async () => {
  const clock = createFakeClock();
  writeFileSync(path, "one");
  const errors: string[] = [];
  const log = createLogger("test", "ERROR", { write: (line) => void errors.push(messageIn(line)) });
  await using file = await openWatchedFile({ ...options(), log, clock });
  writeFileSync(path, "bad");
  await clock.advance(5000);
  await eventually("the complaint", () => errors.length > 0);
  await clock.advance(5000);
  expect(file.current()).toBe("one");
  expect(errors).toEqual(["words cannot be used, the last good ones stay in force"]);

  rmSync(path);
  await clock.advance(5000);
  await eventually("the second complaint", () => errors.length > 1);
  expect(file.current()).toBe("one");
});

test("a file that is put back as it was is told, so that the complaint is not the last word", async () => {
  const clock = createFakeClock();
  writeFileSync(path, "one");
  const lines: string[] = [];
  const log = createLogger("test", "INFO", { write: (line) => void lines.push(messageIn(line)) });
  await using file = await openWatchedFile({ ...options(), log, clock });
  writeFileSync(path, "bad");
  await clock.advance(5000);
  await eventually("the complaint", () => lines.length === 1);
  writeFileSync(path, "one");
  await clock.advance(5000);
  await eventually("the good news", () => lines.length > 1);
  expect(lines[1]).toBe("words are as before");
  expect(file.current()).toBe("one");
});

test("a file that is taken away counts as the value of none", async () => {
  const clock = createFakeClock();
  writeFileSync(path, "one");
  await using file = await openWatchedFile({ ...options(), clock, missing: "none" });
  expect(file.current()).toBe("one");
  rmSync(path);
  await clock.advance(5000);
  await eventually("no text", () => file.current() === "none");
});

test("a file that is emptied before it is written anew is never taken for an empty one", async () => {
  const clock = createFakeClock();
  writeFileSync(path, "one");
  let reads = 0;
  const read = (from: string) => readFile(from, "utf8").finally(() => reads++);
  await using file = await openWatchedFile({ ...options(), read, clock });
  const seen: string[] = [];
  using heard = file.onChange(() => seen.push(file.current()));
  void heard;
  writeFileSync(path, "");
  await clock.advance(5000);
  await eventually("the empty file was read", () => reads > 1);
  writeFileSync(path, "two");
  await clock.advance(500);
  await eventually("the second text", () => file.current() === "two");
  expect(seen).toEqual(["two"]);
});

test("a file that stays empty is one", async () => {
  const clock = createFakeClock();
  writeFileSync(path, "one");
  await using file = await openWatchedFile({ ...options(), clock });
  writeFileSync(path, "");
  await eventually("the empty text", async () => {
    await clock.advance(500);
    return file.current() === "";
  });
  expect(file.current()).toBe("");
});

test("as long as nothing has changed the file is not read again, after a second time", async () => {
  const clock = createFakeClock();
  path = join(folder, "later", "file"); // no such directory: nothing to watch
  let reads = 0;
  const read = (from: string) => readFile(from, "utf8").finally(() => reads++);
  const parsed: string[] = [];
  const parseCounted = (text: string) => {
    parsed.push(text);
    return parse(text);
  };
  await using file = await openWatchedFile({
    ...options(),
    read,
    parse: parseCounted,
    clock,
    missing: "none",
  });
  mkdirSync(join(folder, "later"));
  for (const text of ["one", "bad", "two"]) {
    writeFileSync(path, text);
    reads = 0;
    await eventually("read for the second time", async () => {
      await clock.advance(5000);
      return reads === 2;
    });
    // Each look takes a turn of the file system, which no clock of ours moves.
    for (let i = 0; i < 10; i++) {
      await clock.advance(5000);
      await stat(path);
    }
    expect(reads).toBe(2);
  }
  expect(file.current()).toBe("two");
  expect(parsed).toEqual(["one", "bad", "two"]);
});

test("a wrong or missing file at the start is an error that names it, or what the caller says", async () => {
  await expect(openWatchedFile(options())).rejects.toMatchObject({ reason: "unreadable-file" });
  writeFileSync(path, "bad");
  await expect(openWatchedFile(options())).rejects.toMatchObject({
    reason: "bad-file",
    message: `${path}: it is bad`,
  });
  await using file = await openWatchedFile({ ...options(), wrong: "nothing" });
  expect(file.current()).toBe("nothing");
  writeFileSync(path, "good");
  await eventually("the text", () => file.current() === "good");
});
