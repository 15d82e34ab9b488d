/**
 * The namespace's resolv.conf: read, pointed to our resolver, and put back as it was (resolv.conf(5); docs/protocol.md, "Names").
 *
 * It is written in place, because containers have it as a mount of one file. What it was before stands in it as comments, so that
 * a client that was killed leaves all that the next one needs.
 */
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  writeSync,
} from "node:fs";
import { parseDomain } from "../sdk/dns/name.ts";
import { formatAddress, parseIp } from "../sdk/prefix.ts";

export const SYSTEM_RESOLV_CONF = "/etc/resolv.conf";

const MARK = "# Written by nsm nsc while a wire offers name servers.";
const EXPLANATION = `${MARK} The lines with "#nsm|" are the file as it was; they come back.`;
const KEPT = "#nsm|";

export interface ResolvConf {
  /** Addresses, in their canonical form. */
  readonly servers: readonly string[];
  /** The last `search` or `domain` line, as `parseDomain` writes them. */
  readonly domains: readonly string[];
  /** Lines about neither. */
  readonly others: readonly string[];
}

export function parseResolvConf(text: string): ResolvConf {
  const servers: string[] = [];
  let domains: readonly string[] = [];
  const others: string[] = [];
  for (const line of text.split(/\r?\n/)) {
    const [keyword = "", ...values] = line.trim().split(/\s+/);
    if (keyword === "" || keyword.startsWith("#") || keyword.startsWith(";")) continue;
    if (keyword === "nameserver") {
      const address = parseIp((values[0] ?? "").replace(/%.*$/, ""));
      if (address !== undefined) servers.push(formatAddress(address));
    } else if (keyword === "search" || keyword === "domain") {
      domains = values.map(parseDomain).filter((domain) => domain !== undefined);
    } else others.push(line);
  }
  return { servers, domains, others };
}

/** Dots of a name from which on it is looked for as it is first (resolv.conf(5)): 1 unless told, 15 at most. */
export function ndotsOf({ others }: Pick<ResolvConf, "others">): number {
  const options = others.filter((line) => /^\s*options\s/.test(line)).flatMap((line) => line.split(/\s+/));
  const [, digits] = /^ndots:(\d+)$/.exec(options.findLast((word) => /^ndots:\d+$/.test(word)) ?? "") ?? [];
  return digits === undefined ? 1 : Math.min(15, Number(digits));
}

/** The file that sends all questions to `server`, and holds the original. */
export function rewritten(original: string, server: string): string {
  const kept = original.split("\n").map((line) => `${KEPT}${line}`);
  const lines = [EXPLANATION, ...kept, `nameserver ${server}`, ...parseResolvConf(original).others];
  return `${lines.join("\n")}\n`;
}

/**
 * The file as it was before it was rewritten: by us, or by a Go client, which turns all lines into comments and does not put them
 * back. Undefined for a file that nobody rewrote.
 */
export function originalOf(text: string, server: string): string | undefined {
  const lines = text.split("\n");
  if (text.startsWith(MARK)) {
    const kept = lines.filter((line) => line.startsWith(KEPT)).map((line) => line.slice(KEPT.length));
    return kept.join("\n");
  }
  const comments = lines.filter((line) => line.startsWith("#")).map((line) => line.slice(1));
  const isGo =
    parseResolvConf(text).servers.join() === server &&
    parseResolvConf(comments.join("\n")).servers.length > 0;
  return isGo ? `${comments.join("\n")}\n` : undefined;
}

/** As bytes, one a character: what is not ASCII stays as it is. Throws the system's error. */
export function readConf(path: string): string {
  return readFileSync(path, "latin1");
}

/** In place. Whenever it is interrupted, one of the two texts is there, with blank lines behind at the worst. */
export function writeConf(path: string, text: string): void {
  const fd = openSync(path, "r+");
  try {
    const { size } = fstatSync(fd);
    writeSync(fd, Buffer.from(text.padEnd(size, "\n"), "latin1"), 0, undefined, 0);
    ftruncateSync(fd, text.length);
  } finally {
    closeSync(fd);
  }
}

/**
 * False when the file may serve others than our network namespace: a process that was put into a namespace of its own by
 * `nsenter` or `ip netns exec` sees the machine's file, unless one of its own is mounted over it (ip-netns(8)). Also false when
 * we may not look at the first process, which has more rights then.
 */
export function isOwnFile(path: string): boolean {
  try {
    if (readlinkSync("/proc/1/ns/net") === readlinkSync("/proc/self/ns/net")) return true;
    return readlinkSync("/proc/1/ns/mnt") !== readlinkSync("/proc/self/ns/mnt") && isMountPoint(path);
  } catch {
    return false;
  }
}

function isMountPoint(path: string): boolean {
  const place = realpathSync(path);
  const mounts = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  return mounts.some((line) => line.split(" ")[4] === place);
}
