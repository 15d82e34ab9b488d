/**
 * Runs recorded vectors: every case of a file goes through our code, and a known difference is a predicate on the case beside
 * the number of its record in DECISIONS.md. Formats of the files: test/vectors/README.md.
 *
 * `NSM_VECTORS` names another folder with the same file names and formats; no case is known to the code.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { describe, expect, it } from "vitest";
import { GrpcCode, NsmError, messageOf } from "../../sdk/errors.ts";

const FOLDER = process.env["NSM_VECTORS"] ?? join(import.meta.dirname, "../vectors");
const MOST_REPORTED = 20;

/** How a recorded failure is written: a gRPC code and a text, or only the fact. */
export type VectorError = true | { readonly code: number; readonly message: string };

export interface VectorFile {
  readonly about: string;
  readonly source: string;
  readonly cases: readonly unknown[];
  /** Members that all cases share, such as `now` or `identities`. */
  readonly [member: string]: unknown;
}

/** Cases that we answer otherwise than the recording, on purpose. */
export interface Difference<C> {
  /** Number of the record in DECISIONS.md: `D3`. */
  readonly record: string;
  /** True for the cases that the record speaks of. Looks at the case's data, never at its index, name or kind alone. */
  readonly differs: (vector: C) => boolean;
}

export interface VectorKind {
  readonly run: (vector: unknown, file: VectorFile) => void | Promise<void>;
  readonly differences: readonly Difference<unknown>[];
}

/** Cases of one kind: `run` throws when our result is not the recorded one. `C` is the format in test/vectors/README.md. */
export function vectorKind<C>(
  run: (vector: C, file: VectorFile) => void | Promise<void>,
  differences: readonly Difference<C>[] = [],
): VectorKind {
  return {
    run: (vector, file) => run(vector as C, file),
    differences: differences.map(({ record, differs }) => ({ record, differs: (v) => differs(v as C) })),
  };
}

/** Reads one file of the folder; a missing or empty one throws. */
export function readVectors(fileName: string): VectorFile {
  const file = JSON.parse(readFileSync(join(FOLDER, fileName), "utf8")) as VectorFile;
  if (!Array.isArray(file.cases) || file.cases.length === 0) throw new Error(`${fileName}: no cases`);
  return file;
}

/**
 * Declares the tests of one file: one for each of its kinds, one for the differences of that kind, and one that fails when the
 * file holds a kind that `kinds` does not know. Cases without a kind are of kind `""`.
 */
export function describeVectors(fileName: string, kinds: Readonly<Record<string, VectorKind>>): void {
  describe(fileName, () => {
    it("is there, and every kind in it is known", () => {
      const unknown = readVectors(fileName)
        .cases.map(kindOf)
        .filter((kind) => !Object.hasOwn(kinds, kind));
      expect([...new Set(unknown)]).toEqual([]);
    });
    for (const [name, kind] of Object.entries(kinds)) {
      it(`agrees on every case ${name === "" ? "" : `of kind ${name}`}`, () =>
        runCases(fileName, name, kind));
      if (kind.differences.length > 0) {
        it(`still differs where DECISIONS.md says so ${name}`, () => runDifferences(fileName, name, kind));
      }
    }
  });
}

async function runCases(fileName: string, name: string, kind: VectorKind): Promise<void> {
  const file = readVectors(fileName);
  const failures: string[] = [];
  for (const [index, vector] of file.cases.entries()) {
    if (kindOf(vector) !== name || differenceOf(vector, kind) !== undefined) continue;
    const failure = await failureOf(vector, file, kind);
    if (failure !== undefined) failures.push(`${title(vector, index)}: ${failure}`);
  }
  expect(failures.length, report(failures)).toBe(0);
}

async function runDifferences(fileName: string, name: string, kind: VectorKind): Promise<void> {
  const file = readVectors(fileName);
  const failures: string[] = [];
  for (const [index, vector] of file.cases.entries()) {
    const difference = kindOf(vector) === name ? differenceOf(vector, kind) : undefined;
    if (difference === undefined) continue;
    if ((await failureOf(vector, file, kind)) === undefined) {
      failures.push(`${title(vector, index)}: agrees with the recording, ${difference.record} is too wide`);
    }
  }
  expect(failures.length, report(failures)).toBe(0);
}

async function failureOf(vector: unknown, file: VectorFile, kind: VectorKind): Promise<string | undefined> {
  try {
    await kind.run(vector, file);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

function differenceOf(vector: unknown, kind: VectorKind): Difference<unknown> | undefined {
  return kind.differences.find(({ differs }) => differs(vector));
}

function kindOf(vector: unknown): string {
  return textMember(vector, "kind");
}

function title(vector: unknown, index: number): string {
  return `case ${index} ${kindOf(vector)} ${textMember(vector, "name") || textMember(vector, "about")}`.trim();
}

function textMember(vector: unknown, member: string): string {
  const value: unknown = Object.getOwnPropertyDescriptor(vector ?? {}, member)?.value;
  return typeof value === "string" ? value : "";
}

function report(failures: readonly string[]): string {
  const more = failures.length > MOST_REPORTED ? [`… and ${failures.length - MOST_REPORTED} more`] : [];
  return `${failures.length} cases differ\n${[...failures.slice(0, MOST_REPORTED), ...more].join("\n")}`;
}

/** Throws with both sides in short when they are not equal (deeply, `undefined` members count). */
export function same(what: string, ours: unknown, recorded: unknown): void {
  if (isDeepStrictEqual(ours, recorded)) return;
  throw new Error(`${what}\n    ours     ${short(ours)}\n    recorded ${short(recorded)}`);
}

/** What `run` returned or threw, so that a failure is a result like any other. */
export type Outcome<T> = { readonly value: T } | { readonly error: unknown };

export async function outcomeOf<T>(run: () => T | Promise<T>): Promise<Outcome<T>> {
  try {
    return { value: await run() };
  } catch (error) {
    return { error };
  }
}

/**
 * Compares failures: both fail or neither does. A recorded code 2 (a plain error there) or `true` fits any `NsmError`, another
 * code must be ours too; texts never matter. An error of ours that is no `NsmError` is always a fault.
 * Returns our value, or undefined when both failed.
 */
export function sameError<T>(ours: Outcome<T>, recorded: VectorError | undefined): T | undefined {
  if ("value" in ours) {
    if (recorded !== undefined) throw new Error(`ours succeeds, recorded is ${short(recorded)}`);
    return ours.value;
  }
  if (!(ours.error instanceof NsmError)) throw new Error("not an NsmError", { cause: ours.error });
  if (recorded === undefined) throw new Error(`ours fails: ${ours.error.code} ${ours.error.message}`);
  if (recorded !== true && recorded.code !== GrpcCode.UNKNOWN) {
    same("error code", GrpcCode[ours.error.code], recorded.code);
  }
  return undefined;
}

function short(value: unknown): string {
  const text = JSON.stringify(value, (_, v: unknown) => (typeof v === "bigint" ? `${v}n` : v)) ?? "undefined";
  return text.length > 1500 ? `${text.slice(0, 1500)}…` : text;
}
