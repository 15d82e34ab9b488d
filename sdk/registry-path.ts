/**
 * The path of a registration: tokens in the metadata key `path`, ids in the record (docs/protocol.md, "Registration path").
 * Pure: messages are not touched, each step returns new values.
 */
import { NsmError } from "./errors.ts";
import { isJsonObject, tryParseJson } from "./json.ts";
import type { JsonObject, JsonValue } from "./json.ts";
import { spiffeIdOf } from "./policies.ts";

/** Metadata key, in the request and in the answer's header. */
export const PATH_KEY = "path";

const LARGEST_INDEX = 2 ** 32 - 1;

export interface RegistrationPath {
  readonly index: number;
  /** One a segment. */
  readonly tokens: readonly string[];
}

export const EMPTY_PATH: RegistrationPath = { index: 0, tokens: [] };

/** A registration between the caller's position and the next hop. */
export interface RegistrationHop {
  /** For the policies and the next hop; empty when the caller sent no readable path. */
  readonly path: RegistrationPath;
  /** For the record. */
  readonly pathIds: readonly string[];
  /** Undefined when the caller sent no readable path and so gets none back. */
  readonly callerIndex: number | undefined;
}

/**
 * The path that a call or an answer carries: the last value counts. Undefined when there is none or it is not the JSON of a
 * path. Member names are read in any case, `null` is an empty path.
 */
export function readRegistrationPath(metadata: {
  get(key: string): readonly string[];
}): RegistrationPath | undefined {
  const text = metadata.get(PATH_KEY).at(-1);
  const value = text === undefined ? undefined : tryParseJson(text, { number: plainInteger });
  if (value === null) return EMPTY_PATH;
  if (!isJsonObject(value)) return undefined;
  const index = readIndex(member(value, "index"));
  const tokens = readSegments(member(value, "pathsegments"));
  return index === undefined || tokens === undefined ? undefined : { index, tokens };
}

/** The value of the metadata key. ASCII: characters beyond it are written as escapes, because metadata values are ASCII. */
export function writeRegistrationPath({ index, tokens }: RegistrationPath): string {
  const segments = tokens.length === 0 ? null : tokens.map((token) => ({ token }));
  return JSON.stringify({ Index: index, PathSegments: segments }).replace(
    /[<>&\u007f-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * A server's step: the caller's token into the caller's segment, the own one into the next, and both ids into `path_ids`.
 *
 * `callerToken`: from call metadata, empty when missing; it counts as nobody's where it has no SPIFFE id.
 * Throws INVALID_ARGUMENT `path-index` when the index is beyond the path, INTERNAL `own-token` when the own token has no SPIFFE id.
 */
export function enterRegistration(step: {
  path: RegistrationPath | undefined;
  pathIds: readonly string[];
  callerToken: string;
  ownToken: string;
}): RegistrationHop {
  const { path = EMPTY_PATH, callerToken, ownToken } = step;
  const callerIndex = path.tokens.length === 0 ? 0 : path.index;
  if (callerIndex > 0 && callerIndex >= path.tokens.length)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "path-index",
      `registration path: index ${callerIndex} is beyond its ${path.tokens.length} segments`,
    );
  const ownId = spiffeIdOf(ownToken);
  if (ownId === "") throw new NsmError("INTERNAL", "own-token", "the own token names no SPIFFE id");
  const put = (list: readonly string[], caller: string, own: string) =>
    placed(placed(list, callerIndex, caller), callerIndex + 1, own);
  const pathIds = put(step.pathIds, spiffeIdOf(callerToken), ownId);
  if (step.path === undefined) return { path: EMPTY_PATH, pathIds, callerIndex: undefined };
  return {
    path: { index: callerIndex + 1, tokens: put(path.tokens, callerToken, ownToken) },
    pathIds,
    callerIndex,
  };
}

/** The path for the answer's header, from the path as the next hops left it; undefined: no header. */
export function leaveRegistration(
  hop: RegistrationHop,
  path: RegistrationPath,
): RegistrationPath | undefined {
  return hop.callerIndex === undefined ? undefined : { index: hop.callerIndex, tokens: path.tokens };
}

/** A client's step: what it knows after the answer, whose header may carry a newer path. */
export function adoptAnswer(
  path: RegistrationPath,
  header: { get(key: string): readonly string[] },
): RegistrationPath {
  return readRegistrationPath(header) ?? path;
}

/** `value` in place of element `index`, or at the end where the list is shorter. */
function placed(list: readonly string[], index: number, value: string): readonly string[] {
  return index < list.length ? list.with(index, value) : [...list, value];
}

/** Null for an absent member, undefined when the name appears in two cases: then nobody knows which one was meant. */
function member(object: JsonObject, lowerCaseName: string): JsonValue | undefined {
  const [found, ...more] = [...object].filter(([name]) => name.toLowerCase() === lowerCaseName);
  if (found === undefined) return null;
  return more.length > 0 ? undefined : found[1];
}

function readIndex(value: JsonValue | undefined): number | undefined {
  if (value === null) return 0;
  return typeof value === "number" && value <= LARGEST_INDEX ? value : undefined;
}

function readSegments(value: JsonValue | undefined): readonly string[] | undefined {
  if (value === null) return [];
  if (!Array.isArray(value)) return undefined;
  const tokens: string[] = [];
  for (const segment of value) {
    if (!isJsonObject(segment)) return undefined;
    const token = member(segment, "token");
    if (token !== null && typeof token !== "string") return undefined;
    tokens.push(token ?? "");
  }
  return tokens;
}

/** Go reads no sign, fraction or exponent into an unsigned number; NaN is no index. */
function plainInteger(text: string): number {
  return /^\d+$/.test(text) ? Number(text) : Number.NaN;
}
