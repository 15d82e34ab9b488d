/** Structured logs: one JSON line an event on stderr. Field names: connection, service, nse, path, peer, interface, durationMs, err. */
import { pino } from "pino";
import type { DestinationStream, Logger } from "pino";
import { NsmError } from "./errors.ts";

export type { Logger } from "pino";

/** Values that must never reach a log, wherever a field of that name appears one or two levels deep. */
const SECRETS = ["token", "privateKey", "key", "*.token", "*.privateKey", "*.key"];

/** `level`: a name of the Go programs (TRACE, DEBUG, INFO, WARN, ERROR) or of pino, in any case. Default: to stderr. */
export function createLogger(
  name: string,
  level: string,
  destination: DestinationStream = pino.destination({ dest: 2, sync: true }),
): Logger {
  return pino(
    {
      name,
      level: level.toLowerCase(),
      base: { name },
      redact: { paths: SECRETS, censor: "…" },
      serializers: { err: errorFields },
    },
    destination,
  );
}

/** Our own errors say what there is to know; a stack is for surprises. */
function errorFields(error: unknown): unknown {
  if (error instanceof NsmError) {
    const { code, reason, message } = error;
    return { code, reason, message };
  }
  return error instanceof Error ? pino.stdSerializers.err(error) : error;
}

/** For tests and libraries that were given no logger. */
export const silentLogger: Logger = pino({ level: "silent" });
