/** Tables for people, as wide as their terminal. */
import { printable } from "./printable.ts";

/** How wide the terminal is; what goes to a file or pipe gets 100 columns. */
export function terminalWidth(): number {
  return process.stdout.columns ?? process.stderr.columns ?? 100;
}

export interface Column<T> {
  readonly title: string;
  readonly value: (row: T) => string;
}

/**
 * Rows under titles. Columns from the right that don't fit `width` go to lines of their own below their row, as do
 * those named in `below`.
 */
export function formatTable<T>(
  rows: readonly T[],
  columns: readonly Column<T>[],
  below: readonly Column<T>[],
  width: number,
): readonly string[] {
  const cell = ({ value }: Column<T>, row: T) => printable(value(row));
  const widths = columns.map((column) =>
    Math.max(column.title.length, ...rows.map((row) => cell(column, row).length)),
  );
  const beside = columns.filter((_, index) => sum(widths.slice(0, index + 1)) + 2 * index <= width);
  const line = (values: readonly string[]) =>
    values
      .map((value, index) => value.padEnd(widths[index] ?? 0))
      .join("  ")
      .trimEnd();
  const details = [...columns.slice(beside.length), ...below];
  return [
    line(beside.map(({ title }) => title)),
    ...rows.flatMap((row) => [
      line(beside.map((column) => cell(column, row))),
      ...details.flatMap((column) => fitted(`    ${column.title.toLowerCase()} ${cell(column, row)}`, width)),
    ]),
  ];
}

/** The line in several, where it is longer than `width`, broken at spaces; its first two words stay together. */
export function fitted(line: string, width: number, indent = "      "): readonly string[] {
  if (line.length <= width) return [line];
  const [, head = line, tail = ""] = /^( *\S+ +\S+)(.*)$/.exec(line) ?? [];
  const lines = [head];
  for (const word of tail.match(/ +\S+/g) ?? []) {
    const longer = lines.at(-1) + word;
    if (longer.length <= width) lines[lines.length - 1] = longer;
    else lines.push(indent + word.trimStart());
  }
  return lines;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
