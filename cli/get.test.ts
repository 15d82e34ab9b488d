import { expect, test } from "vitest";
import { NsmError } from "../sdk/errors.ts";
import { collect } from "./get-collect.ts";
import { isAsked } from "./get-kinds.ts";
import type { Shown } from "./get-kinds.ts";
import { createPrinter } from "./get-print.ts";
import type { Format } from "./get-print.ts";
import type { Source, Update } from "./get-sources.ts";

const row = (key: string, ...cells: string[]): Shown => ({
  key,
  names: [key, ...cells],
  value: { id: key },
  fingerprint: key,
  cells,
});
const rows = [row("one", "a", "10.0.0.1"), row("two", "bbbb", "10.0.0.2")];

function printed(format: Format, act: (printer: ReturnType<typeof createPrinter>) => void, width = Infinity) {
  let text = "";
  const write = (piece: string) => (text += piece);
  act(
    createPrinter({
      kind: { name: "wires", one: "wire" },
      titles: ["NAME", "ADDRESS"],
      format,
      write,
      width,
    }),
  );
  return text;
}

test("a list is a table, a JSON document or a YAML document; an empty table is nothing", () => {
  expect(printed("table", (printer) => printer.list(rows))).toBe(
    "NAME  ADDRESS\na     10.0.0.1\nbbbb  10.0.0.2\n",
  );
  expect(printed("table", (printer) => printer.list(rows), 8)).toBe(
    "NAME\na\n    address 10.0.0.1\nbbbb\n    address 10.0.0.2\n",
  );
  expect(printed("table", (printer) => printer.list([]))).toBe("");
  expect(JSON.parse(printed("json", (printer) => printer.list(rows)))).toEqual({
    wires: [{ id: "one" }, { id: "two" }],
  });
  expect(printed("yaml", (printer) => printer.list([]))).toBe("wires: []\n");
});

test("changes are lines below one title, JSON lines, or YAML documents", () => {
  const act = (printer: ReturnType<typeof createPrinter>) => {
    printer.changes([
      { what: "present", row: row("one", "a", "10.0.0.1") },
      { what: "present", row: row("three", "longer", "10.0.0.3") },
    ]);
    printer.changes([{ what: "gone", row: row("two", "b", "10.0.0.2") }]);
  };
  expect(printed("wide", act)).toBe(
    "EVENT    NAME    ADDRESS\nPRESENT  a       10.0.0.1\nPRESENT  longer  10.0.0.3\nGONE     b       10.0.0.2\n",
  );
  expect(printed("json", act)).toBe(
    '{"event":"present","wire":{"id":"one"}}\n{"event":"present","wire":{"id":"three"}}\n{"event":"gone","wire":{"id":"two"}}\n',
  );
  expect(printed("yaml", act)).toBe(
    "---\nevent: present\nwire:\n  id: one\n---\nevent: present\nwire:\n  id: three\n---\nevent: gone\nwire:\n  id: two\n",
  );
});

test.for([
  [[], true],
  [["lan"], true],
  [["la"], false],
  [["l*n"], true],
  [["*"], true],
  [["l.n"], false],
  [["other", "lan"], true],
  [["0123"], true],
  [["012"], false],
  [["1234"], false],
] as const)("names %j on the command line: %s", ([asked, expected]) => {
  expect(isAsked({ key: "01234567-89ab", names: ["lan"] }, asked)).toBe(expected);
});

/** A source whose streams say what they are told to, one after the other. */
function scripted(...streams: (readonly (Update<string> | Error)[])[]): Source<string> & { opened: number } {
  const source = {
    name: "test",
    opened: 0,
    async *read() {
      const script = streams[source.opened++] ?? [];
      for (const each of script) {
        await Promise.resolve();
        if (each instanceof Error) throw each;
        yield each;
      }
    },
  };
  return source;
}

const list = (...keys: string[]): Update<string> => ({
  kind: "list",
  items: new Map(keys.map((key) => [key, key])),
});
const broken = new NsmError("UNAVAILABLE", "unreachable", "gone");

test("a watch keeps what it knows while its stream is broken, and what the next list lacks is gone", async () => {
  const stop = new AbortController();
  const source = scripted(
    [list("a"), { kind: "put", key: "b", item: "b" }, { kind: "gone", key: "a" }, broken],
    [list("c")],
  );
  const collection = collect(source);
  const seen: string[] = [];
  const faults: unknown[] = [];
  await collection.run({
    watch: true,
    signal: stop.signal,
    onChange() {
      seen.push(collection.values().join());
      if (source.opened === 2) stop.abort();
    },
    onFault: (error) => faults.push([error, collection.values().join()]),
  });
  expect(seen).toEqual(["a", "a,b", "b", "c"]);
  expect(faults).toEqual([[broken, "b"]]);
});

test("what fails before it has said anything is an error, once or watched", async () => {
  for (const watch of [false, true]) {
    const options = {
      watch,
      signal: new AbortController().signal,
      onChange: () => undefined,
      onFault: () => undefined,
    };
    await expect(collect(scripted([broken])).run(options)).rejects.toBe(broken);
  }
});
