/** What `nsm get` writes: a table that fits the terminal, JSON or YAML; one document, or one piece a change. */
import { stringify } from "yaml";
import type { Kind, Shown } from "./get-kinds.ts";
import { printable, printableDocument } from "./printable.ts";
import { formatTable } from "./table.ts";

export const formats = ["table", "wide", "json", "yaml"] as const;
export type Format = (typeof formats)[number];

export type ChangeName = "present" | "new" | "changed" | "gone";

export interface Change {
  readonly what: ChangeName;
  readonly row: Shown;
}

export interface Printer {
  list(rows: readonly Shown[]): void;
  /** With JSON one line a change, with YAML one document. */
  /** Those that come together are aligned. */
  changes(list: readonly Change[]): void;
}

export interface PrinterOptions {
  readonly kind: Pick<Kind, "name" | "one">;
  readonly titles: readonly string[];
  readonly format: Format;
  readonly write?: (text: string) => void;
  /** Columns of the terminal; Infinity for files and pipes, whose readers count on one line a row. */
  readonly width?: number;
}

export function createPrinter(options: PrinterOptions): Printer {
  const { kind, titles, format, width = outputWidth() } = options;
  const put = options.write ?? writeOut;
  const isDocument = format === "json" || format === "yaml";
  const write = (text: string) => put(isDocument ? printableDocument(text) : text);
  switch (format) {
    case "json":
      return {
        list: (rows) => write(`${JSON.stringify({ [kind.name]: values(rows) }, undefined, 2)}\n`),
        changes: (list) =>
          write(linesOf(list.map(({ what, row }) => JSON.stringify({ event: what, [kind.one]: row.value })))),
      };
    case "yaml":
      return {
        list: (rows) => write(stringify({ [kind.name]: values(rows) })),
        changes: (list) =>
          write(
            list.map(({ what, row }) => `---\n${stringify({ event: what, [kind.one]: row.value })}`).join(""),
          ),
      };
    case "table":
    case "wide": {
      // The widths of a watch only grow, so that its lines stay below one another for as long as they can.
      let widths: readonly number[] = [];
      return {
        list(rows) {
          if (rows.length > 0) write(linesOf(formatTable(rows, columnsOf(titles), [], width)));
        },
        changes(list) {
          const above = ["EVENT", ...titles];
          const lines = list.map(({ what, row }) => [what.toUpperCase(), ...row.cells.map(printable)]);
          if (widths.length === 0) lines.unshift(above);
          widths = above.map((_, index) =>
            Math.max(widths[index] ?? 0, ...lines.map((line) => line[index]?.length ?? 0)),
          );
          write(lines.map((line) => padded(line, widths)).join(""));
        },
      };
    }
  }
}

/** One document on stdout. */
export function writeDocument(format: "json" | "yaml", value: object): void {
  writeOut(
    printableDocument(format === "json" ? `${JSON.stringify(value, undefined, 2)}\n` : stringify(value)),
  );
}

function columnsOf(titles: readonly string[]) {
  return titles.map((title, index) => ({ title, value: ({ cells }: Shown) => cells[index] ?? "" }));
}

function values(rows: readonly Shown[]): object[] {
  return rows.map(({ value }) => value);
}

function padded(cells: readonly string[], widths: readonly number[]): string {
  return `${cells
    .map((cell, index) => cell.padEnd(widths[index] ?? 0))
    .join("  ")
    .trimEnd()}\n`;
}

function linesOf(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join("");
}

/** Columns of the terminal; files and pipes have room for everything. */
export function outputWidth(): number {
  return process.stdout.isTTY ? process.stdout.columns : Infinity;
}

function writeOut(text: string): void {
  process.stdout.write(text);
}
