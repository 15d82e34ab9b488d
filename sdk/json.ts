/**
 * JSON (RFC 8259) of strangers: duplicate members are refused, depth is bounded, and objects are Maps, so that a member named
 * `__proto__` or `constructor` is only a member.
 */
import { NsmError } from "./errors.ts";

/** `N` is what numbers are read as. */
export type JsonValue<N = number> = null | boolean | N | string | readonly JsonValue<N>[] | JsonObject<N>;
export type JsonObject<N = number> = ReadonlyMap<string, JsonValue<N>>;

export interface JsonOptions<N = number> {
  /** Deepest nesting of arrays and objects. Default 32. */
  readonly maxDepth?: number;
  /** Makes the value of a number from its text. Default `Number`: 1e400 is Infinity. */
  readonly number?: (text: string) => N;
}

const WHITE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
// oxlint-disable-next-line eslint/no-control-regex -- RFC 8259 §7 forbids exactly these inside strings
const STRING = /"[^"\\\u0000-\u001f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\u0000-\u001f]*)*"/y;
const LITERAL = /true|false|null/y;

/** Throws INVALID_ARGUMENT `bad-json` with the position of the fault (and nothing of the text, which may hold a token). */
export function parseJson(text: string, options?: JsonOptions): JsonValue;
export function parseJson<N>(text: string, options: JsonOptions<N>): JsonValue<N>;
export function parseJson(text: string, options: JsonOptions<unknown> = {}): JsonValue<unknown> {
  const { maxDepth = 32, number = Number } = options;
  let at = 0;

  const fail = (fault: string) =>
    new NsmError("INVALID_ARGUMENT", "bad-json", `JSON, position ${at}: ${fault}`);
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    at += found?.length ?? 0;
    return found;
  };
  const skip = (mark: string): boolean => {
    take(WHITE);
    if (text[at] !== mark) return false;
    at++;
    return true;
  };

  const value = (depth: number): JsonValue<unknown> => {
    if (depth > maxDepth) throw fail(`nested deeper than ${maxDepth}`);
    if (skip("{")) return members(depth);
    if (skip("[")) return elements(depth);
    const quoted = take(STRING);
    if (quoted !== undefined) return unquote(quoted);
    const digits = take(NUMBER);
    if (digits !== undefined) return number(digits);
    const literal = take(LITERAL);
    if (literal === undefined) throw fail("a value is missing");
    return literal === "null" ? null : literal === "true";
  };

  const elements = (depth: number): readonly JsonValue<unknown>[] => {
    const list: JsonValue<unknown>[] = [];
    if (skip("]")) return list;
    do list.push(value(depth + 1));
    while (skip(","));
    if (!skip("]")) throw fail("an array does not end");
    return list;
  };

  const members = (depth: number): JsonObject<unknown> => {
    const object = new Map<string, JsonValue<unknown>>();
    if (skip("}")) return object;
    do {
      take(WHITE);
      const quoted = take(STRING);
      if (quoted === undefined || !skip(":")) throw fail("a member name is missing");
      const name = unquote(quoted);
      if (object.has(name)) throw fail("a member appears twice");
      object.set(name, value(depth + 1));
    } while (skip(","));
    if (!skip("}")) throw fail("an object does not end");
    return object;
  };

  const result = value(0);
  take(WHITE);
  if (at !== text.length) throw fail("something follows the value");
  return result;
}

/** `parseJson`, or undefined where it throws. */
export function tryParseJson(text: string, options: JsonOptions = {}): JsonValue | undefined {
  try {
    return parseJson(text, options);
  } catch (error) {
    if (error instanceof NsmError) return undefined;
    throw error;
  }
}

export function isJsonObject<N>(value: JsonValue<N> | undefined): value is JsonObject<N> {
  return value instanceof Map;
}

/** Half surrogate pairs become U+FFFD, as in Go: a text that cannot be encoded would fail much later. */
function unquote(quoted: string): string {
  return quoted.includes("\\") ? String(JSON.parse(quoted)).toWellFormed() : quoted.slice(1, -1);
}
