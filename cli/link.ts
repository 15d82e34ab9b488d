/** `nsm link`: joins this domain to another one, shows the links there are, ends them. */
import { durationFromMs, timestampDate, timestampMs } from "@bufbuild/protobuf/wkt";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { Exports } from "../api/gen/exports_pb.js";
import { Links } from "../api/gen/link_pb.js";
import type { EndedLink, LinkStatus, ListResponse } from "../api/gen/link_pb.js";
import { parseDuration } from "../sdk/config.ts";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { ExitCode } from "./exit-code.ts";
import { outputWidth, writeDocument } from "./get-print.ts";
import { printableLines } from "./printable.ts";
import { withProxy } from "./proxy-client.ts";
import type { ProxyClient } from "./proxy-client.ts";
import { formatTable } from "./table.ts";

const MOST_TOKEN_BYTES = 16 * 1024;
const SHORTEST_LIFE_MS = 1000;
const LONGEST_LIFE_MS = 24 * 3_600_000;

interface Common {
  /** `--proxy` */
  readonly proxy: string | undefined;
}

/** The token alone on stdout; what to do with it on stderr. Exit code 0. */
export async function runLinkToken(
  options: Common & { readonly expires: string; readonly output: "text" | "json" },
): Promise<number> {
  const lifeMs = readLife(options.expires);
  return await withProxy(options.proxy, async (proxy) => {
    const { token, expires } = await proxy.call(Links.method.createToken, { life: durationFromMs(lifeMs) });
    const end = expires === undefined ? "" : timestampDate(expires).toISOString();
    if (options.output === "json") writeDocument("json", { token, expires: end });
    else {
      process.stdout.write(`${token}\n`);
      say(`good once, until ${end}. On the other cluster:\n  nsm link join <token>`);
    }
    return ExitCode.ok;
  });
}

/** What is done on stderr, the domain on stdout. Exit code 0 once both directions are verified; an interruption takes all back. */
export async function runLinkJoin(
  given: string,
  options: Common & { readonly output: "text" | "json" },
): Promise<number> {
  const token = given === "-" ? await readToken() : given;
  return await withProxy(options.proxy, async (proxy) => {
    for await (const { text, linked } of proxy.stream(Links.method.join, { token })) {
      if (text !== "") say(text);
      if (linked === undefined) continue;
      if (options.output === "json") writeDocument("json", valueOf(linked));
      else process.stdout.write(`${printableLines(linked.domain)}\n`);
      return ExitCode.ok;
    }
    throw new NsmError("UNAVAILABLE", "given-up", "the proxy stopped before the link was made: try again");
  });
}

export async function runLinkList(
  options: Common & { readonly output: "table" | "wide" | "json" | "yaml" },
): Promise<number> {
  return await withProxy(options.proxy, async (proxy) => {
    const list = await proxy.call(Links.method.list, {});
    const { output } = options;
    if (output === "json" || output === "yaml")
      writeDocument(output, {
        domain: list.domain,
        trustDomain: list.trustDomain,
        links: list.links.map(valueOf),
        ended: list.ended.map(valueOfEnded),
      });
    else {
      if (list.links.length === 0)
        say(`${list.domain} has no links: nsm link token makes a token for another cluster to join with`);
      for (const line of tableOf(list, output === "wide", Date.now(), outputWidth()))
        process.stdout.write(`${line}\n`);
    }
    return ExitCode.ok;
  });
}

/** Exit code 0 once the other side has answered at each of the addresses. */
export async function runLinkSetAddress(
  domain: string,
  addresses: readonly string[],
  options: Common,
): Promise<number> {
  return await withProxy(options.proxy, async (proxy) => {
    await proxy.call(Links.method.setAddress, { domain, addresses: [...addresses] });
    say(`${domain} is dialled at ${addresses.join(", ")} from now on`);
    return ExitCode.ok;
  });
}

/** Exit code 4 when there is no such link. */
export async function runLinkRemove(domain: string, options: Common): Promise<number> {
  return await withProxy(options.proxy, async (proxy) => {
    try {
      const { told } = await proxy.call(Links.method.remove, { domain });
      say(
        told
          ? `${domain} is not linked any more, on both sides`
          : `${domain} is not linked any more. It could not be told: it will hear of it when both can speak again within a day, or remove the link there, too`,
      );
      const left = await exportsTo(proxy, domain);
      if (left.length > 0)
        say(`who is linked under that name next may use ${left.join(", ")}: nsm unexport takes that back`);
      return ExitCode.ok;
    } catch (error) {
      if (!(error instanceof NsmError) || error.reason !== "not-linked") throw error;
      say(`nsm: ${messageOf(error)}`);
      return ExitCode.notFound;
    }
  });
}

/** What operators export to a domain by its name, linked or not. */
async function exportsTo(proxy: ProxyClient, domain: string): Promise<readonly string[]> {
  const { exports } = await proxy.call(Exports.method.list, {});
  return exports.flatMap((each) =>
    !each.ofRegistry && each.export?.domain === domain ? [each.export.service] : [],
  );
}

function readLife(text: string): number {
  try {
    const lifeMs = parseDuration(text);
    if (lifeMs < SHORTEST_LIFE_MS || lifeMs > LONGEST_LIFE_MS) throw new Error("a token lives 1s to 24h");
    return lifeMs;
  } catch (error) {
    throw new NsmError(
      "INVALID_ARGUMENT",
      "bad-life",
      `--expires ${JSON.stringify(text)}: ${messageOf(error)}`,
    );
  }
}

/** So that it need not stand in the list of processes. */
async function readToken(): Promise<string> {
  let text = "";
  for await (const part of process.stdin) {
    text += String(part);
    if (text.length > MOST_TOKEN_BYTES) break;
  }
  return text.trim();
}

/** For programs: durations in milliseconds, times as RFC 3339. */
export function valueOf(status: LinkStatus): object {
  const { domain, trustDomain, proxyId, state, since, why, dials, way, addresses, rtt, bundleHeard } = status;
  return {
    domain,
    trustDomain,
    proxyId,
    state,
    since: since && timestampDate(since).toISOString(),
    ...(why !== "" && { why }),
    dialledBy: dials ? "us" : "them",
    ...(way !== "" && { way }),
    addresses,
    ...(rtt && { rttMs: millisecondsOf(rtt) }),
    ...(bundleHeard && { bundleHeard: timestampDate(bundleHeard).toISOString() }),
    offeredToUs: status.offeredToUs,
    offeredByUs: status.offeredByUs,
    ...(status.note !== "" && { note: status.note }),
  };
}

function valueOfEnded({ domain, trustDomain, since, byUs, told }: EndedLink): object {
  return {
    domain,
    trustDomain,
    since: since && timestampDate(since).toISOString(),
    removedBy: byUs ? "us" : "them",
    otherSideKnows: told,
  };
}

/** Lines of a table for people; below it, what is to be said of links that are down, and of those that have ended. */
export function tableOf(
  { links, ended }: Pick<ListResponse, "links" | "ended">,
  wide: boolean,
  nowMs: number,
  width: number,
): readonly string[] {
  const age = (ms: number) => ageText(nowMs - ms);
  const columns = [
    { title: "DOMAIN", value: ({ domain }: LinkStatus) => domain },
    {
      title: "STATE",
      value: ({ state, since }: LinkStatus) =>
        since === undefined ? state : `${state} ${age(timestampMs(since))}`,
    },
    {
      title: "RTT",
      value: ({ rtt }: LinkStatus) => (rtt === undefined ? "-" : `${millisecondsOf(rtt).toFixed(1)} ms`),
    },
    {
      title: "BUNDLE",
      value: ({ bundleHeard }: LinkStatus) =>
        bundleHeard === undefined ? "-" : `${age(timestampMs(bundleHeard))} old`,
    },
    { title: "DIALLED BY", value: ({ dials }: LinkStatus) => (dials ? "us" : "them") },
    { title: "OFFERS US", value: ({ offeredToUs }: LinkStatus) => few(offeredToUs, wide) },
    { title: "WE OFFER", value: ({ offeredByUs }: LinkStatus) => few(offeredByUs, wide) },
    ...(wide
      ? [
          { title: "WAY", value: ({ way }: LinkStatus) => way || "-" },
          { title: "PROXY", value: ({ proxyId }: LinkStatus) => proxyId },
          { title: "ADDRESSES", value: ({ addresses }: LinkStatus) => addresses.join(",") || "-" },
        ]
      : []),
  ];
  const lines = links.length === 0 ? [] : formatTable(links, columns, [], width);
  const reasons = links
    .filter(({ why }) => why !== "")
    .map(({ domain, why }) => printableLines(`${domain}: ${why}`));
  const notes = links
    .filter(({ note }) => note !== "")
    .map(({ domain, note }) => printableLines(`${domain}: ${note}`));
  const ends = ended
    .filter(({ byUs, told }) => !(byUs && told))
    .map(({ domain, byUs, since }) => {
      const when = since === undefined ? "" : ` ${age(timestampMs(since))} ago`;
      const what = byUs ? `removed here${when}; ${domain} does not know yet` : `removed by ${domain}${when}`;
      return printableLines(`${domain}: ${what}`);
    });
  return [...lines, ...reasons, ...notes, ...ends];
}

/** With fractions, which `durationMs` rounds. */
function millisecondsOf({ seconds, nanos }: Duration): number {
  return Number(seconds) * 1000 + nanos / 1e6;
}

function few(services: readonly string[], all: boolean): string {
  if (services.length === 0) return "-";
  return all || services.length <= 3
    ? services.join(",")
    : `${services.slice(0, 3).join(",")} and ${services.length - 3} more`;
}

function ageText(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)}h` : `${Math.floor(seconds / 86_400)}d`;
}

function say(text: string): void {
  process.stderr.write(`${printableLines(text)}\n`);
}
