/**
 * Generic URLs as Go's net/url reads them, by hand: WHATWG's `URL` resolves dots, changes case and accepts and refuses other
 * texts (docs/protocol.md, "Network service URLs"; RFC 3986).
 */
import { NsmError } from "./errors.ts";

/** A URL taken apart; percent codes are decoded where the member says so. */
export interface GoUrl {
  /** Lower case, empty when there is none. */
  readonly scheme: string;
  /** Decoded; undefined when there is no user part. A password is not kept. */
  readonly user: string | undefined;
  readonly hasPassword: boolean;
  /** Decoded host with port, brackets included. */
  readonly host: string;
  /** Host without brackets and port. */
  readonly hostname: string;
  /** Digits, empty when there is none. */
  readonly port: string;
  /** Decoded. Empty for `scheme:opaque`. */
  readonly path: string;
  /** Still encoded. */
  readonly query: string;
  readonly hasFragment: boolean;
}

/** What of a URL a percent code stands in; decides which codes are allowed. */
type Part = "host" | "zone" | "user" | "path" | "query" | "fragment";

const USER = /^[A-Za-z0-9\-._:~!$&'()*+,;=%@]*$/;
/** ASCII that may stand in a host as it is. */
const HOST_BYTE = /[A-Za-z0-9!$&'()*+,;=:[\]<>"\-_.~]/;
const OPTIONAL_PORT = /^(?::[0-9]*)?$/;

/** Throws INVALID_ARGUMENT `bad-url` with the text and the reason, also for percent codes that are not UTF-8. */
export function parseGoUrl(text: string): GoUrl {
  const [beforeFragment, fragment] = cut(text, "#");
  // oxlint-disable-next-line no-control-regex -- these are the ones that are refused
  if (/[\x00-\x1f\x7f]/.test(beforeFragment)) throw badUrl(text, "holds a control character");
  try {
    if (fragment !== undefined) unescape(fragment, "fragment");
    return parseParts(beforeFragment, fragment !== undefined);
  } catch (error) {
    throw error instanceof Fault ? badUrl(text, error.message) : error;
  }
}

function parseParts(text: string, hasFragment: boolean): GoUrl {
  const { scheme, rest: afterScheme } = splitScheme(text);
  const [rest, query = ""] = cut(afterScheme, "?");
  const url = { scheme, user: undefined, hasPassword: false, host: "", query, hasFragment };
  if (!rest.startsWith("/")) {
    if (scheme !== "") return { ...url, ...hostParts(""), path: "" };
    if (cut(rest, "/")[0].includes(":")) throw new Fault("has a colon in its first part but no scheme");
  }
  if (!rest.startsWith("//") || (scheme === "" && rest.startsWith("///")))
    return { ...url, ...hostParts(""), path: unescape(rest, "path") };
  const slash = rest.indexOf("/", 2);
  const authority = rest.slice(2, slash < 0 ? undefined : slash);
  const path = slash < 0 ? "" : unescape(rest.slice(slash), "path");
  return { ...url, ...parseAuthority(authority), path };
}

/** Letters, then digits `+` `-` `.` too, then a colon. Anything else before the colon means that there is no scheme. */
function splitScheme(text: string): { scheme: string; rest: string } {
  if (text.startsWith(":")) throw new Fault("has no scheme before the colon");
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(text)?.[1];
  if (scheme === undefined) return { scheme: "", rest: text };
  return { scheme: scheme.toLowerCase(), rest: text.slice(scheme.length + 1) };
}

function parseAuthority(authority: string): Pick<GoUrl, "user" | "hasPassword"> & HostParts {
  const at = authority.lastIndexOf("@");
  const host = hostParts(parseHost(authority.slice(at + 1)));
  if (at < 0) return { user: undefined, hasPassword: false, ...host };
  const userInfo = authority.slice(0, at);
  if (!USER.test(userInfo)) throw new Fault("has a character before @ that must be percent-encoded");
  const [user, password] = cut(userInfo, ":");
  if (password !== undefined) unescape(password, "user");
  return { user: unescape(user, "user"), hasPassword: password !== undefined, ...host };
}

function parseHost(text: string): string {
  const bracket = text.startsWith("[") ? text.lastIndexOf("]") : undefined;
  if (bracket === -1) throw new Fault("lacks the ] of its address");
  const colon = bracket === undefined ? text.lastIndexOf(":") : bracket + 1;
  if (colon >= 0 && !OPTIONAL_PORT.test(text.slice(colon))) throw new Fault("has a port that is no number");
  const zone = bracket === undefined ? -1 : text.slice(0, bracket).indexOf("%25");
  if (zone < 0) return unescape(text, "host");
  const [before, zoneName, after] = [text.slice(0, zone), text.slice(zone, bracket), text.slice(bracket)];
  return unescape(before, "host") + unescape(zoneName, "zone") + unescape(after, "host");
}

type HostParts = Pick<GoUrl, "host" | "hostname" | "port">;

function hostParts(host: string): HostParts {
  const colon = host.lastIndexOf(":");
  const hasPort = colon >= 0 && OPTIONAL_PORT.test(host.slice(colon));
  const name = hasPort ? host.slice(0, colon) : host;
  const hostname = name.startsWith("[") && name.endsWith("]") ? name.slice(1, -1) : name;
  return { host, hostname, port: hasPort ? host.slice(colon + 1) : "" };
}

/** Keys and decoded values in order. Pairs with a semicolon or a bad percent code are dropped, as Go's `URL.Query` does. */
export function parseGoQuery(query: string): readonly (readonly [string, string])[] {
  return query.split("&").flatMap((pair) => {
    if (pair === "" || pair.includes(";") || badEscape(pair)) return [];
    const [key, value = ""] = cut(pair, "=");
    return [[decodeQuery(key), decodeQuery(value)] as const];
  });
}

function decodeQuery(text: string): string {
  try {
    return unescape(text, "query");
  } catch (error) {
    throw error instanceof Fault ? badUrl(text, error.message) : error;
  }
}

function badEscape(text: string): boolean {
  return /%(?![0-9A-Fa-f]{2})/.test(text);
}

/** Decodes percent codes (and, in a query, plus signs). Throws a Fault. */
function unescape(text: string, part: Part): string {
  if (badEscape(text)) throw new Fault("has a % that is not followed by two hexadecimal digits");
  if (part === "host" || part === "zone") checkHost(text, part);
  const plain = part === "query" ? text.replaceAll("+", " ") : text;
  if (!plain.includes("%")) return plain;
  try {
    return decodeURIComponent(plain);
  } catch (error) {
    throw new Fault("has percent codes that are not UTF-8", { cause: error });
  }
}

/** In a host only `%25` and codes of non-ASCII bytes are allowed; in a zone also a code of what may stand there. */
function checkHost(text: string, part: "host" | "zone"): void {
  for (const [, code] of text.matchAll(/%([0-9A-Fa-f]{2})/g)) {
    const byte = Number.parseInt(code ?? "", 16);
    const allowed =
      part === "host" ? byte >= 0x80 : byte === 0x20 || HOST_BYTE.test(String.fromCharCode(byte));
    if (byte !== 0x25 && !allowed) throw new Fault(`has the percent code %${code} in its host`);
  }
  for (const char of text) {
    if (char < "\x80" && char !== "%" && !HOST_BYTE.test(char))
      throw new Fault(`has the character ${JSON.stringify(char)} in its host`);
  }
}

function cut(text: string, separator: string): readonly [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)];
}

/** What is wrong with a part; becomes an NsmError where the whole text is known. */
class Fault extends Error {}

function badUrl(text: string, reason: string): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-url", `URL ${JSON.stringify(text)} ${reason}`);
}
