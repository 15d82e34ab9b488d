/**
 * The authority's keys on disk. Whoever reads the file can be anybody in the trust domain; whoever loses it must start every
 * workload again.
 */
import { join } from "node:path";
import * as z from "zod";
import { NsmError } from "../sdk/errors.ts";
import { badState, createPrivateFile, preparePrivateDirectory, readPrivateFile } from "./private-file.ts";

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
  await preparePrivateDirectory(directory);
  const path = join(directory, FILE);
  let saved = await readState(path);
  if (saved === undefined) {
    await createPrivateFile(path, JSON.stringify(await create(), undefined, 2));
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

async function readState(path: string): Promise<State | undefined> {
  const content = await readPrivateFile(path);
  if (content === undefined) return undefined;
  try {
    return State.parse(JSON.parse(content));
  } catch {
    // Without its cause: messages of parsers show the text, here keys.
    throw badState(`${path} is damaged: restore it, or remove it and start all workloads again`);
  }
}
