import { expect, test } from "vitest";
import { createStory } from "./story.ts";

/** A terminal that knows the two sequences that are used: cursor up, and erase what is below. */
function terminal(rows = 24) {
  const screen: string[] = [""];
  return {
    isTTY: true,
    rows,
    screen,
    write(text: string) {
      for (const part of text.replaceAll("\x1b[", "\n[").split(/(\n\[\d+A|\n\[J|\n)/)) {
        const up = /^\n\[(\d+)A$/.exec(part)?.[1];
        if (up !== undefined) screen.length -= Number(up);
        else if (part === "\n[J") screen[screen.length - 1] = "";
        else if (part === "\n") screen.push("");
        else screen[screen.length - 1] += part;
      }
    },
  };
}

/** Without times and the empty line that the cursor is in. */
const seen = ({ screen }: { screen: readonly string[] }) =>
  screen.slice(0, -1).map((line) => line.replace(/^ *[\d.]+ s {2}/, ""));

test("a step that is longer than the terminal goes on below its text", () => {
  const out = { ...terminal(), columns: 30 };
  createStory(false, out).step("one two three four five six");
  expect(seen(out)).toEqual(["one two three four", "          five six"]);
});

test("live lines stay below what is told, and are replaced", () => {
  const out = terminal();
  const story = createStory(false, out);
  story.step("one");
  story.live(["a", "b"]);
  expect(seen(out)).toEqual(["one", "", "a", "b"]);
  story.step("two");
  expect(seen(out)).toEqual(["one", "two", "", "a", "b"]);
  story.live(["c"]);
  story.print(["three"]);
  expect(seen(out)).toEqual(["one", "two", "three", "", "c"]);
});

test("settled live lines are as any other, and stay", () => {
  const out = terminal();
  const story = createStory(false, out);
  story.live(["a"]);
  story.settle();
  story.step("after");
  expect(seen(out)).toEqual(["", "a", "", "after"]);
});

test("more live lines than the terminal has are cut", () => {
  const out = terminal(5);
  const story = createStory(false, out);
  story.live(["a", "b", "c", "d", "e"]);
  story.live(["A", "B", "C", "D", "E"]);
  expect(seen(out)).toEqual(["", "A", "B"]);
});

test("where there is no terminal, live lines come once, at the end", () => {
  let text = "";
  const story = createStory(false, { write: (more) => (text += more) });
  story.live(["a"]);
  story.live(["b"]);
  story.print(["line"]);
  story.settle();
  expect(text).toBe("line\n\nb\n\n");
});
