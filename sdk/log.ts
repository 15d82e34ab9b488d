/** Structured logs: one JSON line an event on stderr. Field names: connection, service, nse, path, peer, interface, durationMs, err. */
import { pino } from "pino";
import type { Logger } from "pino";

export type { Logger } from "pino";

/** Values that must never reach a log, wherever a field of that name appears one or two levels deep. */
const SECRETS = ["token", "privateKey", "key", "*.token", "*.privateKey", "*.key"];

/** `level`: a name of the Go programs (TRACE, DEBUG, INFO, WARN, ERROR) or of pino, in any case. */
export function createLogger(name: string, level: string): Logger {
  return pino(
    { name, level: level.toLowerCase(), base: { name }, redact: { paths: SECRETS, censor: "…" } },
    pino.destination({ dest: 2, sync: true }),
  );
}

/** For tests and libraries that were given no logger. */
export const silentLogger: Logger = pino({ level: "silent" });
