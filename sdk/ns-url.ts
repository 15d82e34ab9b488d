/**
 * Network service URLs: `mechanism://service[@domain]/interface?label=value` (docs/protocol.md, "Network service URLs").
 *
 * `parseNsUrl`, `parseNsUrlList` and `parseAwarenessGroups` read what the Go components read; `parseServiceUrls` is what our
 * client accepts from its environment: it refuses whatever would be dropped, guessed or fail later.
 */
import { create } from "@bufbuild/protobuf";
import { MechanismSchema } from "../api/gen/connection_pb.js";
import type { Mechanism } from "../api/gen/connection_pb.js";
import { NsmError } from "./errors.ts";
import { parseGoQuery, parseGoUrl } from "./go-url.ts";
import type { GoUrl } from "./go-url.ts";
import { checkInterfaceName } from "./interface-name.ts";

/** One wish of a client. */
export interface NsUrl {
  /** `service` or `service@domain`. */
  readonly networkService: string;
  /** Class LOCAL, type from the scheme in upper case; parameter `name` is the interface, present when the URL has a path. */
  readonly mechanism: Mechanism;
  readonly labels: Readonly<Record<string, string>>;
}

/** Throws INVALID_ARGUMENT `bad-url`. */
export function parseNsUrl(text: string): NsUrl {
  return fromUrl(parseGoUrl(text));
}

function fromUrl(url: GoUrl): NsUrl {
  const { scheme, user, hostname, path } = url;
  const parameters = path.includes("/") ? { name: path.slice(path.lastIndexOf("/") + 1) } : {};
  return {
    networkService: user === undefined || user === "" ? hostname : `${user}@${hostname}`,
    mechanism: create(MechanismSchema, { cls: "LOCAL", type: scheme.toUpperCase(), parameters }),
    labels: labelsOf(url),
  };
}

/** Repeated keys are joined with commas. */
function labelsOf(url: GoUrl): Record<string, string> {
  const labels = new Map<string, string>();
  for (const [key, value] of parseGoQuery(url.query)) {
    const before = labels.get(key);
    labels.set(key, before === undefined ? value : `${before},${value}`);
  }
  return Object.fromEntries(labels);
}

/** URLs separated by commas; an empty item is a URL without service. Throws INVALID_ARGUMENT `bad-url`. */
export function parseNsUrlList(text: string): readonly NsUrl[] {
  return text.trim() === "" ? [] : text.split(",").map(parseNsUrl);
}

/**
 * Groups of URLs whose connections may share addresses: `[url,url],[url]`, or one group without brackets. Blanks do not count.
 * Throws INVALID_ARGUMENT `bad-awareness-groups` or `bad-url`.
 */
export function parseAwarenessGroups(text: string): readonly (readonly NsUrl[])[] {
  const value = text.replaceAll(" ", "");
  if (value === "") return [];
  const bracketed = value.startsWith("[");
  const inside = bracketed ? value.slice(1, -1) : value;
  const groups = bracketed ? inside.split("],[") : [inside];
  const malformed = value.length < 2 || (bracketed && !value.endsWith("]"));
  if (malformed || groups.some((group) => /[[\]]/.test(group)))
    throw badGroups(text, "expected [url,url],[url]");
  return groups.map((group) =>
    group.split(",").map((item) => {
      if (item === "") throw badGroups(text, "a group lacks a URL");
      return parseNsUrl(item);
    }),
  );
}

function badGroups(text: string, reason: string): NsmError {
  return new NsmError(
    "INVALID_ARGUMENT",
    "bad-awareness-groups",
    `awareness groups ${JSON.stringify(text)}: ${reason}`,
  );
}

const MOST_URLS = 16;
const MOST_LABELS = 32;
const LONGEST_LABEL_KEY = 63;
const LONGEST_LABEL_VALUE = 253;
/** DNS-like words, as NetworkServices are named in Kubernetes; upper case and `_` occur outside it. */
const SERVICE = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$/;

/**
 * The wish list of our client (`NSM_NETWORK_SERVICES`). Empty text is an empty list.
 * Throws INVALID_ARGUMENT `bad-service-url` (or `bad-url`, `bad-interface-name`) naming the URL, the fault and the remedy.
 */
export function parseServiceUrls(text: string): readonly NsUrl[] {
  if (text === "") return [];
  const items = text.split(",");
  if (items.length > MOST_URLS)
    throw badService(text.slice(0, 100), `is one of ${items.length}`, `give at most ${MOST_URLS}`);
  const urls = items.map(parseServiceUrl);
  const names = urls.flatMap(({ mechanism: { parameters } }) => parameters["name"] ?? []);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined)
    throw badService(text, `asks for interface ${twice} twice`, "give each its own name");
  return urls;
}

function parseServiceUrl(text: string): NsUrl {
  if (text === "") throw badService(text, "is empty", "remove the spare comma");
  const url = parseGoUrl(text);
  checkAuthority(text, url);
  checkPath(text, url.path);
  checkQuery(text, url.query);
  const wish = fromUrl(url);
  // `kernel://service/` means the same as without the slash: the mesh chooses the interface name.
  if (wish.mechanism.parameters["name"] === "") wish.mechanism.parameters = {};
  return wish;
}

function checkAuthority(text: string, url: GoUrl): void {
  if (url.scheme !== "kernel")
    throw badService(text, `asks for mechanism ${JSON.stringify(url.scheme)}`, "use kernel://");
  if (url.hasFragment) throw badService(text, "has a fragment", "remove # and what follows, or write %23");
  if (url.hasPassword || url.port !== "" || url.host.endsWith(":"))
    throw badService(text, "has a port or password", "write kernel://service@domain/interface");
  const [service, domain] = url.user === undefined ? [url.hostname] : [url.user, url.hostname];
  if (service === "" || domain === "")
    throw badService(text, "lacks the service or its domain", "write kernel://service@domain/interface");
  for (const name of [service, domain]) {
    if (name !== undefined && !SERVICE.test(name))
      throw badService(text, `has the name ${JSON.stringify(name)}`, "use letters, digits, '.', '_' and '-'");
  }
}

function checkPath(text: string, path: string): void {
  const [, name = "", ...more] = path.split("/");
  if (more.length > 0) throw badService(text, "has more than one path element", "give one interface name");
  if (name !== "") checkInterfaceName(name);
}

function checkQuery(text: string, query: string): void {
  if (query === "") return;
  const pairs = parseGoQuery(query);
  if (pairs.length !== query.split("&").length)
    throw badService(
      text,
      "has a label that cannot be read",
      "write label=value, with %3B for ; and %25 for %",
    );
  if (pairs.length > MOST_LABELS)
    throw badService(text, `has ${pairs.length} labels`, `give at most ${MOST_LABELS}`);
  const seen = new Set<string>();
  for (const [key, value] of pairs) {
    if (key === "" || Buffer.byteLength(key) > LONGEST_LABEL_KEY)
      throw badService(text, `has the label ${JSON.stringify(key)}`, `use 1 to ${LONGEST_LABEL_KEY} bytes`);
    if (Buffer.byteLength(value) > LONGEST_LABEL_VALUE)
      throw badService(text, `has a long value for ${key}`, `use at most ${LONGEST_LABEL_VALUE} bytes`);
    // oxlint-disable-next-line no-control-regex
    if (/[\x00-\x1f\x7f]/.test(key + value))
      throw badService(text, `has a control character in label ${JSON.stringify(key)}`, "remove it");
    if (seen.has(key))
      throw badService(text, `has label ${key} twice`, "write one value, with %2C for a comma");
    seen.add(key);
  }
}

function badService(text: string, fault: string, remedy: string): NsmError {
  return new NsmError(
    "INVALID_ARGUMENT",
    "bad-service-url",
    `network service URL ${JSON.stringify(text)} ${fault}: ${remedy}`,
  );
}
