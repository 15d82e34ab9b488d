/** The exports that operators have said to this proxy (docs/protocol.md, "Exports"): one file, which is ours alone. */
import { join } from "node:path";
import * as z from "zod";
import { EVERY_DOMAIN, exportsOf } from "../../sdk/domains/exports.ts";
import type { Export, Exports } from "../../sdk/domains/exports.ts";
import { NsmError } from "../../sdk/errors.ts";
import { oneAtATime } from "../../sdk/one-at-a-time.ts";
import {
  badState,
  preparePrivateDirectory,
  readPrivateFile,
  replacePrivateFile,
} from "../../sdk/private-file.ts";

const FILE = "exports.json";
const MOST_EXPORTS = 10_000;
const MAX_NAME = 253;

const State = z.strictObject({
  version: z.literal(1),
  exports: z.array(z.strictObject({ service: z.string(), domain: z.string(), acceptEndpoints: z.boolean() })),
});

export interface ExportStore extends Exports {
  /** In the place of the one of that service to that domain. Throws INVALID_ARGUMENT `bad-export`, RESOURCE_EXHAUSTED `too-many-exports`, FAILED_PRECONDITION `bad-state`. */
  add(added: Export): Promise<void>;
  /** To every domain unless one is named; returns what was there. Throws FAILED_PRECONDITION `bad-state`. */
  remove(service: string, domain?: string): Promise<readonly Export[]>;
}

/** The directory is made when the first export is. Throws FAILED_PRECONDITION `bad-state`. */
export async function openExportStore(directory: string): Promise<ExportStore> {
  const path = join(directory, FILE);
  let current = parseState(path, await readPrivateFile(path));
  const listeners = new Set<() => void>();
  const inTurn = oneAtATime();
  /** On disk first: what was said to be withdrawn does not come back. */
  const replace = async (next: readonly Export[]) => {
    await preparePrivateDirectory(directory, "NSM_PROXY_STATE_DIR");
    const state: z.infer<typeof State> = { version: 1, exports: [...next] };
    await replacePrivateFile(path, `${JSON.stringify(state, undefined, 2)}\n`);
    current = next;
    for (const listener of listeners) listener();
  };
  const exports = exportsOf(
    () => current,
    (listener) => {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
  );
  return {
    ...exports,
    add: (added) =>
      inTurn(async () => {
        checkExport(added);
        const others = current.filter((each) => !isSame(each, added));
        if (others.length >= MOST_EXPORTS)
          throw new NsmError(
            "RESOURCE_EXHAUSTED",
            "too-many-exports",
            `there are ${MOST_EXPORTS} exports: nsm unexport, or --to '*'`,
          );
        await replace([...others, added]);
      }),
    remove: (service, domain) =>
      inTurn(async () => {
        const isGone = (each: Export) =>
          each.service === service && (domain === undefined || each.domain === domain);
        const gone = current.filter(isGone);
        if (gone.length > 0) await replace(current.filter((each) => !isGone(each)));
        return gone;
      }),
  };
}

function parseState(path: string, text: string | undefined): readonly Export[] {
  if (text === undefined) return [];
  try {
    return State.parse(JSON.parse(text)).exports;
  } catch (error) {
    throw badState(`${path} is damaged: restore it, or remove it and export again`, error);
  }
}

function isSame(a: Export, b: Export): boolean {
  return a.service === b.service && a.domain === b.domain;
}

function checkExport({ service, domain }: Export): void {
  const isName = (text: string) => /^[^\s\p{C}]+$/u.test(text) && text.length <= MAX_NAME;
  if (!isName(service) || /@.*@|^@|@$/.test(service))
    throw badExport(`${JSON.stringify(service)} is no name of a network service`);
  if (domain !== EVERY_DOMAIN && (!isName(domain) || /[@*]/.test(domain)))
    throw badExport(`${JSON.stringify(domain)} is no name of a domain, nor '*' for every one`);
}

function badExport(text: string): NsmError {
  return new NsmError("INVALID_ARGUMENT", "bad-export", text);
}
