/**
 * The bundles of other trust domains that workloads of ours trust: kept on disk, so that they are there again after a restart.
 * Two may name a domain, the proxy (over the socket) and the configuration; it is trusted as long as one of them does.
 */
import { join } from "node:path";
import * as z from "zod";
import { NsmError, messageOf } from "../sdk/errors.ts";
import type { Logger } from "../sdk/log.ts";
import { oneAtATime } from "../sdk/one-at-a-time.ts";
import { formatBundle, isNews, parseBundle } from "../sdk/spiffe/bundle.ts";
import type { Bundle } from "../sdk/spiffe/bundle.ts";
import { parseTrustDomain } from "../sdk/spiffe/id.ts";
import type { Changing } from "./callers.ts";
import { badState, readPrivateFile, replacePrivateFile } from "../sdk/private-file.ts";

const FILE = "federation.json";
const MAX_DOMAINS = 256;
/** All of them go to every workload in one message, which may have 1 MiB. */
const MAX_BYTES = 512 * 1024;

const Namer = z.enum(["socket", "configuration"]);
const Saved = z.strictObject({
  version: z.literal(1),
  bundles: z.array(
    z.strictObject({ trustDomain: z.string(), namedBy: z.array(Namer).min(1), document: z.string() }),
  ),
});

export type Namer = z.infer<typeof Namer>;

export interface Federated extends Changing {
  /** Trust domain name -> its bundle; another map after each change. */
  current(): ReadonlyMap<string, Bundle>;
  /**
   * Trusts a domain, or takes a newer document of it; resolves when that is on disk and in force.
   *
   * Throws INVALID_ARGUMENT `bad-trust-domain`, `own-trust-domain`, `bad-bundle`, `bundle-too-large`; FAILED_PRECONDITION
   * `sequence-backwards`, `bad-state`; RESOURCE_EXHAUSTED `too-many-bundles`.
   */
  set(trustDomain: string, document: Uint8Array | string, by: Namer): Promise<void>;
  /** Takes back what that namer said. Throws FAILED_PRECONDITION `bad-state`. */
  remove(trustDomain: string, by: Namer): Promise<void>;
  /** The domains that this namer names. */
  namedBy(namer: Namer): readonly string[];
}

interface Entry {
  readonly bundle: Bundle;
  readonly namedBy: ReadonlySet<Namer>;
}

type Entries = ReadonlyMap<string, Entry>;

/** `directory` is private and exists. Throws FAILED_PRECONDITION `bad-state` for a file that cannot be read. */
export async function openFederated(directory: string, ownDomain: string, log: Logger): Promise<Federated> {
  const path = join(directory, FILE);
  const listeners = new Set<() => void>();
  const inTurn = oneAtATime();
  let entries = await load(path);
  let current = bundlesOf(entries);

  const replace = async (next: Entries) => {
    await replacePrivateFile(path, format(next));
    entries = next;
    const bundles = bundlesOf(next);
    const isChange =
      bundles.size !== current.size || [...bundles].some(([name, it]) => current.get(name) !== it);
    if (!isChange) return;
    current = bundles;
    for (const listener of listeners) listener();
  };

  return {
    current: () => current,
    namedBy: (namer) => [...entries].filter(([, { namedBy }]) => namedBy.has(namer)).map(([name]) => name),
    onChange(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    set: (trustDomain, document, by) =>
      inTurn(async () => {
        const bundle = readFor(trustDomain, document, ownDomain);
        const known = entries.get(trustDomain);
        const isNew = isNews(bundle, known?.bundle, trustDomain);
        if (!isNew && known?.namedBy.has(by) === true) return;
        const namedBy = new Set([...(known?.namedBy ?? []), by]);
        const entry = { bundle: isNew ? bundle : (known?.bundle ?? bundle), namedBy };
        const next = new Map([...entries, [trustDomain, entry]]);
        checkSize(next, trustDomain);
        await replace(next);
        log.info(
          { trustDomain, by, certificates: bundle.certificates.length, sequence: String(bundle.sequence) },
          "bundle of a federated trust domain taken",
        );
      }),
    remove: (trustDomain, by) =>
      inTurn(async () => {
        const known = entries.get(trustDomain);
        if (known?.namedBy.has(by) !== true) return;
        const next = new Map(entries);
        const namedBy = new Set([...known.namedBy].filter((namer) => namer !== by));
        if (namedBy.size > 0) next.set(trustDomain, { ...known, namedBy });
        else next.delete(trustDomain);
        await replace(next);
        log.info(
          { trustDomain, by, trusted: namedBy.size > 0 },
          "bundle of a federated trust domain removed",
        );
      }),
  };
}

function readFor(trustDomain: string, document: Uint8Array | string, ownDomain: string): Bundle {
  parseTrustDomain(trustDomain);
  if (trustDomain === ownDomain)
    throw new NsmError(
      "INVALID_ARGUMENT",
      "own-trust-domain",
      `${trustDomain} is the trust domain of this authority: nobody else says who belongs to it`,
    );
  return parseBundle(document);
}

/** The one that comes last is refused, so that a new domain takes no other one's place. */
function checkSize(entries: Entries, newest: string): void {
  const bytes = [...entries.values()]
    .flatMap(({ bundle }) => bundle.certificates)
    .reduce((sum, { raw }) => sum + raw.length, 0);
  if (entries.size > MAX_DOMAINS || bytes > MAX_BYTES)
    throw new NsmError(
      "RESOURCE_EXHAUSTED",
      "too-many-bundles",
      `bundle of ${newest}: with it there would be ${entries.size} federated trust domains with ${bytes} bytes of certificates, at most ${MAX_DOMAINS} and ${MAX_BYTES}`,
    );
}

function bundlesOf(entries: Entries): ReadonlyMap<string, Bundle> {
  return new Map([...entries].map(([name, { bundle }]) => [name, bundle]));
}

function format(entries: Entries): string {
  const bundles = [...entries].map(([trustDomain, { bundle, namedBy }]) => ({
    trustDomain,
    namedBy: [...namedBy],
    document: formatBundle(bundle),
  }));
  return JSON.stringify({ version: 1, bundles } satisfies z.infer<typeof Saved>, undefined, 2);
}

async function load(path: string): Promise<Entries> {
  const content = await readPrivateFile(path);
  if (content === undefined) return new Map();
  try {
    const { bundles } = Saved.parse(JSON.parse(content));
    return new Map(
      bundles.map(({ trustDomain, namedBy, document }) => [
        parseTrustDomain(trustDomain),
        { bundle: parseBundle(document), namedBy: new Set(namedBy) },
      ]),
    );
  } catch (error) {
    throw badState(
      `${path} is damaged (${messageOf(error).slice(0, 200)}): restore it, or remove it and link the other domains again`,
      error,
    );
  }
}
