/** The registrations file, kept up to date: read at start, and again whenever it changes. */
import type { Clock } from "../sdk/clock.ts";
import { NsmError, asNsmError, errnoOf } from "../sdk/errors.ts";
import type { Logger } from "../sdk/log.ts";
import { openWatchedFile } from "../sdk/watched-file.ts";
import type { WatchedFile } from "../sdk/watched-file.ts";
import { parseRegistrations } from "./registrations.ts";
import type { Registration } from "./registrations.ts";
import { readSafeFile } from "./safe-file.ts";

export type Registrations = WatchedFile<readonly Registration[]>;

export interface RegistrationsOptions {
  readonly path: string;
  readonly trustDomain: string;
  readonly log: Logger;
  readonly clock: Clock;
}

/**
 * Throws for a file that is missing or wrong now (NOT_FOUND `no-registrations`, INVALID_ARGUMENT `bad-registrations`,
 * PERMISSION_DENIED `unsafe-registrations`); later on such a file is logged once and the last good one stays in force.
 */
export async function openRegistrations(options: RegistrationsOptions): Promise<Registrations> {
  return await openWatchedFile({
    ...options,
    what: "registrations",
    read: readSafely,
    parse: (text) => parse(text, options),
  });
}

function parse(text: string, { trustDomain, log }: RegistrationsOptions): readonly Registration[] {
  const registrations = parseRegistrations(text, trustDomain);
  for (const { id, match } of registrations)
    if (Object.keys(match).join() === "executable")
      log.warn({ id }, "executable alone proves little: anyone who may run the file gets this identity");
  return registrations;
}

async function readSafely(path: string): Promise<string> {
  try {
    return await readSafeFile(path, "registrations");
  } catch (error) {
    if (errnoOf(error) === "ENOENT")
      throw new NsmError(
        "NOT_FOUND",
        "no-registrations",
        `${path} (NSM_IDENTITY_REGISTRATIONS) does not exist: it says who gets which identity, for example: registrations: [{ id: "spiffe://nsm.local/nsmgr", match: { uid: 0, gid: 1001 } }]`,
        error,
      );
    throw asNsmError(error, "FAILED_PRECONDITION", "unreadable-registrations", `read ${path}`);
  }
}
