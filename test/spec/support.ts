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
const DECISIONS = readFileSync(join(import.meta.dirname, "../../DECISIONS.md"), "utf8");
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
  /** What is wrong with our answer, undefined when it is the recorded one. */
  readonly check: (vector: unknown, file: VectorFile) => Promise<string | undefined>;
  /** The record that says why our answer differs, if one does. */
  readonly recordOf: (vector: unknown) => string | undefined;
  /** All records that this kind refers to. */
  readonly records: readonly string[];
}

/** Cases of one kind: `run` throws when our result is not the recorded one. `C` is the format in test/vectors/README.md. */
export function vectorKind<C>(
  run: (vector: C, file: VectorFile) => void | Promise<void>,
  differences: readonly Difference<C>[] = [],
): VectorKind {
  // The files are data of ours in a documented format; a wrong member makes `run` fail, which is what a test is for.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const typed = (vector: unknown) => vector as C;
  return {
    check: async (vector, file) => {
      const outcome = await outcomeOf(() => run(typed(vector), file));
      return "error" in outcome ? messageOf(outcome.error) : undefined;
    },
    recordOf: (vector) => differences.find(({ differs }) => differs(typed(vector)))?.record,
    records: differences.map(({ record }) => record),
  };
}

/** Reads one file of the folder; a missing or empty one throws. */
export function readVectors(fileName: string): VectorFile {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- see vectorKind
  const file = JSON.parse(readFileSync(join(FOLDER, fileName), "utf8")) as VectorFile;
  if (!Array.isArray(file.cases) || file.cases.length === 0) throw new Error(`${fileName}: no cases`);
  return file;
}

/**
 * Declares the tests of one file: one for each of its kinds, one for the known differences, and one that fails when the file
 * is missing or holds a kind that `kinds` does not know. Cases without a kind are of kind `""`.
 */
export function describeVectors(fileName: string, kinds: Readonly<Record<string, VectorKind>>): void {
  describe(`vectors of ${fileName}`, () => {
    it("is there, and every kind in it is known", () => {
      const unknown = readVectors(fileName)
        .cases.map(kindOf)
        .filter((kind) => !Object.hasOwn(kinds, kind));
      expect([...new Set(unknown)]).toEqual([]);
    });
    for (const [name, kind] of Object.entries(kinds)) {
      it(`agrees on every case ${name === "" ? "" : `of kind ${name}`}`, async () => {
        expect(await disagreements(fileName, name, kind)).toEqual([]);
      });
    }
    it("still differs where DECISIONS.md says so", async () => {
      const records = Object.values(kinds).flatMap((kind) => kind.records);
      expect(records.filter((record) => !DECISIONS.includes(`## ${record}. `))).toEqual([]);
      expect(await needlessDifferences(fileName, kinds)).toEqual([]);
    });
  });
}

async function disagreements(fileName: string, name: string, kind: VectorKind): Promise<readonly string[]> {
  const file = readVectors(fileName);
  const failures: string[] = [];
  for (const [index, vector] of file.cases.entries()) {
    if (kindOf(vector) !== name || kind.recordOf(vector) !== undefined) continue;
    const failure = await kind.check(vector, file);
    if (failure !== undefined) failures.push(`${title(vector, index)}: ${failure}`);
  }
  return shortList(failures);
}

async function needlessDifferences(
  fileName: string,
  kinds: Readonly<Record<string, VectorKind>>,
): Promise<readonly string[]> {
  const file = readVectors(fileName);
  const failures: string[] = [];
  for (const [index, vector] of file.cases.entries()) {
    const kind = kinds[kindOf(vector)];
    const record = kind?.recordOf(vector);
    if (kind === undefined || record === undefined || (await kind.check(vector, file)) !== undefined)
      continue;
    failures.push(
      `${title(vector, index)}: agrees with the recording, the predicate of ${record} is too wide`,
    );
  }
  return shortList(failures);
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

function shortList(failures: readonly string[]): readonly string[] {
  const more = failures.length - MOST_REPORTED;
  return more > 0 ? [...failures.slice(0, MOST_REPORTED), `… and ${more} more`] : failures;
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
