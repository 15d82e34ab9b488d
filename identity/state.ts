/**
 * The authority's keys on disk: one file, 0600 in a directory 0700, replaced as a whole. Whoever reads it can be anybody in the
 * trust domain; whoever loses it must start every workload again.
 */
import { randomUUID } from "node:crypto";
import { link, lstat, mkdir, open, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as z from "zod";
import { NsmError, errnoOf, messageOf } from "../sdk/errors.ts";

const FILE = "authority.json";

const State = z.strictObject({
  version: z.literal(1),
  trustDomain: z.string(),
  /** PEM. */
  certificate: z.string(),
  /** PKCS #8 PEM: signs certificates. */
  key: z.string(),
  /** PKCS #8 PEM: signs JWTs. */
  jwtKey: z.string(),
});

export type State = z.infer<typeof State>;

/**
 * The saved state; that of `create` at the first start, which is then saved.
 *
 * Throws FAILED_PRECONDITION `bad-state` (not readable as state, or open to other users), `other-trust-domain`.
 */
export async function loadState(
  directory: string,
  trustDomain: string,
  create: () => Promise<State>,
): Promise<State> {
  await prepareDirectory(directory);
  const path = join(directory, FILE);
  let saved = await readState(path);
  if (saved === undefined) {
    await writeState(path, await create());
    saved = await readState(path);
  }
  if (saved === undefined) throw badState(`${path} has disappeared`);
  if (saved.trustDomain !== trustDomain)
    throw new NsmError(
      "FAILED_PRECONDITION",
      "other-trust-domain",
      `${path} holds the keys of trust domain ${saved.trustDomain}, not of ${trustDomain}: set NSM_IDENTITY_TRUST_DOMAIN=${saved.trustDomain}, or choose another NSM_IDENTITY_STATE_DIR`,
    );
  return saved;
}

async function prepareDirectory(directory: string): Promise<void> {
  try {
    await mkdir(dirname(directory), { recursive: true, mode: 0o755 });
    await mkdir(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw badState(`${directory} cannot be made: ${messageOf(error)}; set NSM_IDENTITY_STATE_DIR`, error);
  }
  await checkPrivate(directory, "directory", "chmod 700");
}

async function checkPrivate(path: string, kind: "directory" | "file", remedy: string): Promise<void> {
  const found = await lstat(path);
  if (kind === "directory" ? !found.isDirectory() : !found.isFile())
    throw badState(`${path} is not a ${kind}`);
  if (found.uid !== process.geteuid?.()) throw badState(`${path} belongs to uid ${found.uid}, not to us`);
  if ((found.mode & 0o077) !== 0) throw badState(`${path} is open to other users: ${remedy} ${path}`);
}

async function readState(path: string): Promise<State | undefined> {
  let content: string;
  try {
    await checkPrivate(path, "file", "chmod 600");
    content = await readFile(path, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
  try {
    return State.parse(JSON.parse(content));
  } catch {
    // Without its cause: messages of parsers show the text, here keys.
    throw badState(`${path} is damaged: restore it, or remove it and start all workloads again`);
  }
}

/** Never a half-written file, also after a power failure; the first one stays when two processes begin at once. */
async function writeState(path: string, state: State): Promise<void> {
  const draft = `${path}.${randomUUID()}`;
  try {
    {
      await using file = await open(draft, "wx", 0o600);
      await file.writeFile(JSON.stringify(state, undefined, 2));
      await file.sync();
    }
    await link(draft, path);
  } catch (error) {
    if (errnoOf(error) !== "EEXIST") throw badState(`${path} cannot be written: ${messageOf(error)}`, error);
  } finally {
    await rm(draft, { force: true });
  }
  await using directory = await open(dirname(path), "r");
  await directory.sync();
}

function badState(message: string, cause?: unknown): NsmError {
  return new NsmError("FAILED_PRECONDITION", "bad-state", message, cause);
}
