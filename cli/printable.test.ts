import { expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { describeText } from "./describe-text.ts";
import { explainText } from "./explain-text.ts";
import { createPrinter } from "./get-print.ts";
import { printable, printableDocument, printableLines } from "./printable.ts";

/** Clears the screen, sets the title, starts a line of its own, turns the direction of writing. */
const EVIL = "a\u001b[2J\u001b]0;x\u0007\nb\r\u009b1m\u202eé 😀";
const SHOWN = "a\\u{1b}[2J\\u{1b}]0;x\\u{7}\\u{a}b\\u{d}\\u{9b}1m\\u{202e}é 😀";
const BAD = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

test("what a terminal would obey is shown by its number, and letters stay", () => {
  expect(printable(EVIL)).toBe(SHOWN);
  expect(printable(SHOWN)).toBe(SHOWN);
  expect(printableLines("a\n\u001bb")).toBe("a\n\\u{1b}b");
});

test("documents say the same without it", () => {
  const documents = [JSON.stringify({ name: EVIL }), stringify({ name: EVIL })].map(printableDocument);
  for (const text of documents) {
    expect(text.replaceAll("\n", "")).not.toMatch(/\p{Cc}/u);
    expect(parse(text)).toEqual({ name: EVIL });
  }
  expect(JSON.parse(documents[0] ?? "")).toEqual({ name: EVIL });
});

test.for(["table", "wide"] as const)("nsm get -o %s writes one line a row, whatever is in it", (format) => {
  let written = "";
  const printer = createPrinter({
    kind: { name: "wires", one: "wire" },
    titles: ["ID", "SERVICE"],
    format,
    write: (text) => void (written += text),
    width: 200,
  });
  const row = { key: "1", names: [], fingerprint: "", cells: ["1", EVIL], value: {} };
  printer.list([row]);
  printer.changes([{ what: "new", row }]);
  const lines = written.trimEnd().split("\n");
  expect(lines).toHaveLength(4);
  for (const line of lines) expect(line).not.toMatch(BAD);
});

test("nor is it in what nsm explain and nsm describe say", () => {
  const explained = explainText(
    {
      client: EVIL,
      service: EVIL,
      wire: EVIL,
      labels: { [EVIL]: EVIL },
      matches: 0,
      match: null,
      rule: null,
      remark: EVIL,
      endpoints: [],
      forwarders: [],
    },
    100,
  );
  const event = { time: "2026-01-01T00:00:00Z", manager: EVIL, what: "failed", why: EVIL, count: 1 };
  const described = describeText({ id: EVIL, events: [event] }, 0);
  for (const text of [explained, described])
    for (const line of text.split("\n")) expect(line).not.toMatch(BAD);
});
