/**
 * The authority's keys on disk. Whoever reads the file can be anybody in the trust domain; whoever loses it must start every
 * workload again.
 */
import { X509Certificate } from "node:crypto";
import { join } from "node:path";
import * as z from "zod";
import { NsmError } from "../sdk/errors.ts";
import type { Generation } from "./generations.ts";
import { BACKDATED_MS } from "./issuer.ts";
import {
  badState,
  createPrivateFile,
  preparePrivateDirectory,
  readPrivateFile,
  replacePrivateFile,
} from "../sdk/private-file.ts";

const FILE = "authority.json";
/** What version 1 may have signed: its longest life of a certificate. */
const LONGEST_OF_VERSION_1_MS = 30 * 24 * 3_600_000;

/** PEM; keys are PKCS #8. */
const Keys = z.strictObject({
  /** Absent while certificates come from an authority above. */
  ca: z.strictObject({ certificate: z.string(), key: z.string() }).optional(),
  jwtKey: z.string(),
  madeMs: z.number(),
  signsFromMs: z.number(),
  longestLifeMs: z.number(),
});

const State = z.strictObject({
  version: z.literal(2),
  trustDomain: z.string(),
  /** Of what was published last, decimal: numbers of JSON are too small. */
  sequence: z.string().regex(/^\d{1,20}$/),
  /** SHA-256 of what was published last, without its sequence. */
  published: z.string(),
  keys: z.array(Keys).max(64),
});

const StateOfVersion1 = z.strictObject({
  version: z.literal(1),
  trustDomain: z.string(),
  certificate: z.string(),
  key: z.string(),
  jwtKey: z.string(),
});

export type State = z.infer<typeof State>;
export type StoredKeys = z.infer<typeof Keys>;

export interface StateFile {
  readonly current: State;
  /** Resolves when it is on disk. Throws FAILED_PRECONDITION `bad-state`, and then nothing has changed. */
  save(next: State): Promise<void>;
}

/**
 * The saved state, or a new one without keys.
 *
 * Throws FAILED_PRECONDITION `bad-state` (not readable as state, or open to other users), `other-trust-domain`.
 */
export async function openState(directory: string, trustDomain: string): Promise<StateFile> {
  await preparePrivateDirectory(directory, "NSM_IDENTITY_STATE_DIR");
  const path = join(directory, FILE);
  let current = await readState(path);
  if (current === undefined) {
    const empty: State = { version: 2, trustDomain, sequence: "0", published: "", keys: [] };
    await createPrivateFile(path, format(empty));
    current = await readState(path);
  }
  if (current === undefined) throw badState(`${path} has disappeared`);
  if (current.trustDomain !== trustDomain)
    throw new NsmError(
      "FAILED_PRECONDITION",
      "other-trust-domain",
      `${path} holds the keys of trust domain ${current.trustDomain}, not of ${trustDomain}: set NSM_IDENTITY_TRUST_DOMAIN=${current.trustDomain}, or choose another NSM_IDENTITY_STATE_DIR`,
    );
  let state = current;
  return {
    get current() {
      return state;
    },
    async save(next) {
      await replacePrivateFile(path, format(next));
      state = next;
    },
  };
}

/** The times of stored keys. */
export function generationOf({ ca, madeMs, signsFromMs, longestLifeMs }: StoredKeys): Generation {
  const notAfterMs = ca === undefined ? Infinity : new X509Certificate(ca.certificate).validToDate.getTime();
  return { madeMs, signsFromMs, longestLifeMs, notAfterMs };
}

async function readState(path: string): Promise<State | undefined> {
  const content = await readPrivateFile(path);
  if (content === undefined) return undefined;
  try {
    const json: unknown = JSON.parse(content);
    const old = StateOfVersion1.safeParse(json);
    return old.success ? upgrade(old.data) : State.parse(json);
  } catch {
    // Without its cause: messages of parsers show the text, here keys.
    throw badState(`${path} is damaged: restore it, or remove it and start all workloads again`);
  }
}

function upgrade({ trustDomain, certificate, key, jwtKey }: z.infer<typeof StateOfVersion1>): State {
  const madeMs = new X509Certificate(certificate).validFromDate.getTime() + BACKDATED_MS;
  const keys = {
    ca: { certificate, key },
    jwtKey,
    madeMs,
    signsFromMs: madeMs,
    longestLifeMs: LONGEST_OF_VERSION_1_MS,
  };
  return { version: 2, trustDomain, sequence: "0", published: "", keys: [keys] };
}

function format(state: State): string {
  return JSON.stringify(state, undefined, 2);
}
