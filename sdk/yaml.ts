/**
 * YAML 1.2 of configuration files, read so that no text takes long: the library alone compares each key with all others, and
 * goes as deep as the text does. Bounded are size, depth, and what aliases may grow to; tags and repeated keys are faults.
 */
import { CST, Lexer, LineCounter, isScalar, parseAllDocuments, visit } from "yaml";
import type { Document } from "yaml";
import { NsmError, messageOf } from "./errors.ts";

/** Reading this much takes a tenth of a second or two. */
const MAX_BYTES = 256 * 1024;
/** Of collections in one another, and of a line's indentation in columns. */
const MAX_DEPTH = 64;
const MAX_INDENTATION = 4 * MAX_DEPTH;
/** See `maxAliasCount` of the library: how many nodes aliases may stand for. */
const MAX_ALIASES = 100;

export interface YamlFault {
  /** `line 3, column 5` */
  readonly place: string;
  readonly message: string;
}

export interface YamlDocument {
  /** With any of them there is no value. */
  readonly faults: readonly YamlFault[];
  /** Plain objects, lists, texts, numbers, booleans and null. */
  readonly value: unknown;
  /** Where a part of the value stands; of what holds it when it is absent. */
  placeOf(path: readonly PropertyKey[]): string;
}

/** The documents of a text; none of an empty one. Never throws. */
export function readYaml(text: string): readonly YamlDocument[] {
  const lines = new LineCounter();
  const place = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `line ${line}, column ${col}`;
  };
  const refused = (message: string): readonly YamlDocument[] => [
    { faults: [{ place: "file", message }], value: undefined, placeOf: () => "file" },
  ];
  if (Buffer.byteLength(text) > MAX_BYTES) return refused(`it is larger than ${MAX_BYTES} bytes`);
  if (isTooDeep(text)) return refused(`it goes deeper than ${MAX_DEPTH} collections in one another`);
  const documents = parseAllDocuments(text, {
    lineCounter: lines,
    prettyErrors: false,
    uniqueKeys: false, // takes quadratic time: see badKeys
    schema: "core",
  });
  return [...documents].map((document): YamlDocument => {
    const placeOf = (path: readonly PropertyKey[]) => place(offsetOf(document, path));
    const faults = [
      ...[...document.errors, ...document.warnings].map(({ message, pos: [offset] }) => ({
        offset,
        message,
      })),
      ...badKeys(document),
    ].map(({ offset, message }) => ({ place: place(offset), message }));
    if (faults.length > 0) return { faults, value: undefined, placeOf };
    try {
      const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES });
      return { faults, value, placeOf };
    } catch (error) {
      return { faults: [{ place: "file", message: messageOf(error) }], value: undefined, placeOf };
    }
  });
}

/** The one document of a text; null of an empty one. Throws INVALID_ARGUMENT `bad-yaml` that lists every fault with its place. */
export function parseYaml(text: string): unknown {
  const [document, more] = readYaml(text);
  const faults = (document?.faults ?? []).map(({ place, message }) => `${place}: ${message}`);
  if (more !== undefined) faults.push("it holds more than one YAML document");
  if (faults.length > 0) throw new NsmError("INVALID_ARGUMENT", "bad-yaml", faults.join("; "));
  return document?.value ?? null;
}

const FLOW_STEPS = new Map([
  ["flow-map-start", 1],
  ["flow-seq-start", 1],
  ["flow-map-end", -1],
  ["flow-seq-end", -1],
]);

/** By its tokens alone: the parser itself goes as deep as the text, and ends with its stack. */
function isTooDeep(text: string): boolean {
  let flow = 0;
  let onLine = 0;
  for (const token of new Lexer().lex(text)) {
    const type = CST.tokenType(token) ?? "";
    flow += FLOW_STEPS.get(type) ?? 0;
    if (type === "newline") onLine = 0;
    if (type === "seq-item-ind" || type === "explicit-key-ind") onLine++;
    if (type === "space" && onLine === 0 && token.length > MAX_INDENTATION) return true;
    if (flow > MAX_DEPTH || onLine > MAX_DEPTH) return true;
  }
  return false;
}

function badKeys(document: Document): { offset: number; message: string }[] {
  const faults: { offset: number; message: string }[] = [];
  visit(document, {
    Map(_, { items }) {
      const seen = new Set<unknown>();
      for (const { key } of items) {
        if (!isScalar(key)) {
          faults.push({ offset: offsetIn(key), message: "a key must be a plain text or number" });
          continue;
        }
        if (seen.has(key.value))
          faults.push({
            offset: offsetIn(key),
            message: `keys must be unique, ${JSON.stringify(key.value)} is repeated`,
          });
        seen.add(key.value);
      }
    },
  });
  return faults.slice(0, 10);
}

function offsetOf(document: Document, path: readonly PropertyKey[]): number {
  for (let length = path.length; length > 0; length--) {
    const node: unknown = document.getIn(path.slice(0, length), true);
    const offset = offsetIn(node);
    if (offset > 0) return offset;
  }
  return 0;
}

function offsetIn(node: unknown): number {
  if (typeof node !== "object" || node === null || !("range" in node)) return 0;
  return Array.isArray(node.range) ? Number(node.range[0]) : 0;
}
