/** `nsm export` and `nsm unexport`: what other domains may use of this one. */
import { Exports } from "../api/gen/exports_pb.js";
import type { Export } from "../api/gen/exports_pb.js";
import { Links } from "../api/gen/link_pb.js";
import { EVERY_DOMAIN } from "../sdk/domains/exports.ts";
import { NsmError } from "../sdk/errors.ts";
import { ExitCode } from "./exit-code.ts";
import { outputWidth, writeDocument } from "./get-print.ts";
import { printableLines } from "./printable.ts";
import { withProxy } from "./proxy-client.ts";
import type { ProxyClient } from "./proxy-client.ts";
import { formatTable } from "./table.ts";

interface Common {
  readonly proxy: string | undefined;
}

export interface AddOptions extends Common {
  readonly service: string;
  readonly domain: string;
  readonly acceptEndpoints: boolean;
}

/** Exit code 0; 1 when the proxy could not be told. */
export function runExport({ proxy, ...added }: AddOptions): Promise<number> {
  return withProxy(proxy, async (client) => {
    await client.call(Exports.method.add, { export: added });
    const accepting = added.acceptEndpoints ? ", and may register endpoints of it" : "";
    console.log(printableLines(`${to(added.domain)} may use ${added.service}${accepting}`));
    if (!(await isLinked(client, added.domain)))
      console.error(
        printableLines(
          `${added.domain} is not linked: unless the proxy knows it otherwise, this counts when it is (nsm link list)`,
        ),
      );
    return ExitCode.ok;
  });
}

/** True also where the proxy has no links: it knows domains otherwise. */
async function isLinked(client: ProxyClient, domain: string): Promise<boolean> {
  if (domain === EVERY_DOMAIN) return true;
  try {
    const { links } = await client.call(Links.method.list, {});
    return links.some((link) => link.domain === domain);
  } catch (error) {
    if (error instanceof NsmError && error.code !== "CANCELLED") return true;
    throw error;
  }
}

export interface RemoveOptions extends Common {
  readonly service: string;
  /** Undefined: of every domain. */
  readonly domain: string | undefined;
}

/** Exit code 0; 4 when it was not exported; 1 when the proxy could not be told, or others say that it goes on. */
export function runUnexport({ proxy, service, domain }: RemoveOptions): Promise<number> {
  return withProxy(proxy, async (client) => {
    const { removed, remaining } = await client.call(Exports.method.remove, {
      service,
      domain: domain ?? "",
    });
    for (const each of removed)
      console.log(printableLines(`${to(each.domain)} may not use ${service} any more`));
    for (const each of remaining)
      console.error(
        printableLines(
          `nsm: ${to(each.domain)} may still use ${service}: see nsm export --list for who says so`,
        ),
      );
    if (remaining.length > 0) return ExitCode.failed;
    if (removed.length > 0) return ExitCode.ok;
    console.error(
      printableLines(`nsm: ${service} is not exported${domain === undefined ? "" : ` to ${domain}`}`),
    );
    return ExitCode.notFound;
  });
}

export interface ListOptions extends Common {
  readonly output: "table" | "json" | "yaml";
}

/** Exit code 0; 1 when the proxy could not be asked. */
export function runListExports({ proxy, output }: ListOptions): Promise<number> {
  return withProxy(proxy, async (client) => {
    const { exports } = await client.call(Exports.method.list, {});
    const rows = exports
      .flatMap(({ export: each, ofRegistry }) => (each === undefined ? [] : [rowOf(each, ofRegistry)]))
      .toSorted((a, b) => compare(a.service, b.service) || compare(a.domain, b.domain));
    if (output !== "table") writeDocument(output, { exports: rows });
    else if (rows.length === 0)
      console.error("nothing is exported: nsm export <service> --to <domain> lets another domain use one");
    else {
      const lines = formatTable(rows, columns, [], outputWidth());
      process.stdout.write(lines.map((line) => `${line}\n`).join(""));
    }
    return ExitCode.ok;
  });
}

function rowOf({ service, domain, acceptEndpoints }: Export, ofRegistry: boolean) {
  return { service, domain, acceptEndpoints, saidBy: ofRegistry ? "registry" : "operator" } as const;
}

type Row = ReturnType<typeof rowOf>;

const columns: Parameters<typeof formatTable<Row>>[1] = [
  { title: "SERVICE", value: ({ service }) => service },
  { title: "TO", value: ({ domain }) => domain },
  { title: "ENDPOINTS", value: ({ acceptEndpoints }) => (acceptEndpoints ? "accepted" : "-") },
  { title: "SAID BY", value: ({ saidBy }) => saidBy },
];

function to(domain: string): string {
  return domain === "*" ? "every domain" : `domain ${domain}`;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
