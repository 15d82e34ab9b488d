/**
 * YAML 1.2 of configuration files, read so that no text takes long: the library alone compares each key with all others, and
 * goes as deep as the text does. Bounded are size, depth, and what aliases may grow to; tags and repeated keys are faults.
 */
import { CST, Lexer, LineCounter, isMap, isScalar, parseAllDocuments, visit } from "yaml";
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
  /** Where the name of a member stands. */
  placeOfKey(path: readonly PropertyKey[]): string;
}

type Places = Pick<YamlDocument, "placeOf" | "placeOfKey">;
const NOWHERE: Places = { placeOf: () => "file", placeOfKey: () => "file" };

/** The documents of a text; none of an empty one. Never throws. */
export function readYaml(text: string): readonly YamlDocument[] {
  const lines = new LineCounter();
  const place = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `line ${line}, column ${col}`;
  };
  const refused = (message: string): readonly YamlDocument[] => [
    { faults: [{ place: "file", message }], value: undefined, ...NOWHERE },
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
    const places: Places = {
      placeOf: (path) => place(offsetOf(document, path)),
      placeOfKey: (path) => place(keyOffsetOf(document, path)),
    };
    const faults = [
      ...[...document.errors, ...document.warnings].map(({ message, pos: [offset] }) => ({
        offset,
        message,
      })),
      ...badKeys(document),
    ].map(({ offset, message }) => ({ place: place(offset), message }));
    if (faults.length > 0) return { faults, value: undefined, ...places };
    try {
      const value: unknown = document.toJS({ maxAliasCount: MAX_ALIASES });
      return { faults, value, ...places };
    } catch (error) {
      return { faults: [{ place: "file", message: messageOf(error) }], value: undefined, ...places };
    }
  });
}

/**
 * The one document of a text, null of an empty one, of the shape that a schema wants (of zod). Throws INVALID_ARGUMENT `bad-yaml` that
 * lists every fault with its place.
 */
export function parseYamlAs<T>(text: string, schema: Schema<T>): T {
  const document = readOne(text);
  const read = schema.safeParse(document?.value ?? null);
  if (read.success) return read.data;
  throw new NsmError("INVALID_ARGUMENT", "bad-yaml", schemaFaults(document, read.error.issues).join("; "));
}

interface Schema<T> {
  safeParse(
    value: unknown,
  ): { success: true; data: T } | { success: false; error: { issues: readonly Issue[] } };
}

function readOne(text: string): YamlDocument | undefined {
  const [document, more] = readYaml(text);
  const faults = (document?.faults ?? []).map(({ place, message }) => `${place}: ${message}`);
  if (more !== undefined) faults.push("it holds more than one YAML document");
  if (faults.length > 0) throw new NsmError("INVALID_ARGUMENT", "bad-yaml", faults.join("; "));
  return document;
}

/** A fault that a schema finds (of zod). */
interface Issue {
  readonly path: readonly PropertyKey[];
  readonly message: string;
  /** Members that it does not know, of the object at `path`. */
  readonly keys?: readonly string[];
}

/** `line 3, column 5: rules[0].action …`, one text a fault. */
export function schemaFaults(
  document: YamlDocument | undefined,
  issues: readonly Issue[],
): readonly string[] {
  return issues.flatMap(({ path, message, keys }) => {
    const { placeOf, placeOfKey } = document ?? NOWHERE;
    if (keys === undefined) return [`${placeOf(path)}: ${`${dotted(path)} ${message}`.trimStart()}`];
    return keys.map((key) => `${placeOfKey([...path, key])}: ${dotted([...path, key])} is not known here`);
  });
}

/** `rules[0].ports[1]` */
function dotted(path: readonly PropertyKey[]): string {
  return path
    .map((step) => (typeof step === "number" ? `[${step}]` : `.${String(step)}`))
    .join("")
    .replace(/^\./, "");
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

/** Of the member's name. */
function keyOffsetOf(document: Document, path: readonly PropertyKey[]): number {
  const parent: unknown = path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true);
  const items = isMap(parent) ? parent.items : [];
  return offsetIn(items.find(({ key }) => isScalar(key) && key.value === path.at(-1))?.key);
}

function offsetIn(node: unknown): number {
  if (typeof node !== "object" || node === null || !("range" in node)) return 0;
  return Array.isArray(node.range) ? Number(node.range[0]) : 0;
}
