/** `nsm get`: lists what a mesh consists of, once or as it changes. */
import { messageOf } from "../sdk/errors.ts";
import { openMeshClient } from "./client.ts";
import type { MeshClient } from "./client.ts";
import { ExitCode } from "./exit-code.ts";
import { isAsked } from "./get-kinds.ts";
import type { Kind, Listing, Shown } from "./get-kinds.ts";
import { managersOf } from "./get-sources.ts";
import { createPrinter } from "./get-print.ts";
import type { Format, Printer } from "./get-print.ts";
import { untilInterrupted } from "./interrupted.ts";
import { printableLines } from "./printable.ts";

export interface GetOptions {
  readonly names: readonly string[];
  readonly output: Format;
  readonly watch: boolean;
  readonly allNodes: boolean;
  readonly allDomains?: boolean;
  readonly manager: string | undefined;
}

/**
 * Exit code 0; 4 when names were given and nothing bears one; 1 when a manager could not be asked (what others said is printed all
 * the same). With `watch` it goes on until it is interrupted, which is 0, or nobody reads its output.
 */
export async function runGet(kind: Kind, options: GetOptions): Promise<number> {
  using interruption = untilInterrupted();
  const { signal } = interruption;
  try {
    await using client = await openMeshClient({ manager: options.manager, env: process.env, signal });
    const { managers, unknown } = await managersToAsk(client, options.allNodes, signal);
    const { titles, ...listing } = kind.open(managers, options.output === "wide", options.allDomains);
    const printer = createPrinter({ kind, titles, format: options.output });
    if (options.watch) return await watch(listing, options, printer, signal);
    const faults = await listOnce(listing, signal);
    const rows = listing.rows().filter((row) => isAsked(row, options.names));
    printer.list(rows);
    if (rows.length === 0) complain(nothing(kind, options.names, client.spiffeId));
    if (faults + unknown > 0) return ExitCode.failed;
    return rows.length === 0 && options.names.length > 0 ? ExitCode.notFound : ExitCode.ok;
  } catch (error) {
    if (signal.aborted) return options.watch ? ExitCode.ok : ExitCode.interrupted;
    throw error;
  }
}

/** Without the registry nobody knows of the other nodes: the manager that is asked is there all the same. */
async function managersToAsk(client: MeshClient, allNodes: boolean, signal: AbortSignal) {
  try {
    return { managers: await managersOf(client, allNodes, signal), unknown: 0 };
  } catch (error) {
    if (signal.aborted) throw error;
    complain(`managers of other nodes: ${messageOf(error)}`);
    return { managers: [client.manager], unknown: 1 };
  }
}

/** Number of sources that failed, each told on stderr; throws when all did. */
async function listOnce({ collections }: Listing, signal: AbortSignal): Promise<number> {
  const once = { watch: false, signal, onChange: () => undefined, onFault: () => undefined };
  const results = await Promise.allSettled(collections.map((each) => each.run(once)));
  const failed = results.flatMap((result) =>
    result.status === "rejected" ? [result.reason as unknown] : [],
  );
  if (failed.length === collections.length && failed.length > 0) throw failed[0];
  for (const [index, result] of results.entries())
    if (result.status === "rejected") complain(`${collections[index]?.name}: ${messageOf(result.reason)}`);
  return failed.length;
}

async function watch(
  listing: Listing,
  { names }: GetOptions,
  printer: Printer,
  signal: AbortSignal,
): Promise<number> {
  const failed = new AbortController();
  const stop = AbortSignal.any([signal, failed.signal]);
  const silent = new Set(listing.collections);
  let before: ReadonlyMap<string, Shown> | undefined;
  const onChange = () => {
    if (silent.size > 0) return;
    const after = new Map(
      listing
        .rows()
        .filter((row) => isAsked(row, names))
        .map((row) => [row.key, row]),
    );
    tellChanges(printer, before, after);
    before = after;
  };
  const run = async (collection: Listing["collections"][number]) => {
    const heard = () => {
      silent.delete(collection);
      onChange();
    };
    const onFault = (error: unknown) => complain(`${collection.name}: ${messageOf(error)}; trying again`);
    await collection.run({ watch: true, signal: stop, onChange: heard, onFault });
  };
  try {
    await Promise.all(listing.collections.map(run));
  } finally {
    failed.abort();
  }
  return ExitCode.ok;
}

function tellChanges(
  printer: Printer,
  before: ReadonlyMap<string, Shown> | undefined,
  after: ReadonlyMap<string, Shown>,
): void {
  const gone = [...(before ?? [])].flatMap(([key, row]) =>
    after.has(key) ? [] : [{ row, what: "gone" } as const],
  );
  const changes = [...after].flatMap(([key, row]) => {
    const known = before?.get(key);
    if (known?.fingerprint === row.fingerprint) return [];
    return [
      { row, what: before === undefined ? "present" : known === undefined ? "new" : "changed" } as const,
    ];
  });
  // What is there at the beginning gets its titles, even if it is nothing.
  if (before === undefined || gone.length + changes.length > 0) printer.changes([...gone, ...changes]);
}

function nothing({ name }: Kind, names: readonly string[], spiffeId: string): string {
  const asked = names.length === 0 ? "" : ` named ${names.join(" or ")}`;
  const whose = name === "wires" || name === "clients" ? ` that ${spiffeId} may see` : "";
  return `no ${name}${asked}${whose}`;
}

function complain(text: string): void {
  process.stderr.write(`nsm get: ${printableLines(text)}\n`);
}
