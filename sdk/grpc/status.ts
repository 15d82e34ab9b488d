/**
 * NsmError to gRPC status and back (grpc/doc/statuscodes.md; docs/protocol.md, "Errors").
 *
 * The reason travels in the trailer `nsm-reason`, which peers that do not know it ignore. Causes and stacks never travel.
 */
import { Metadata } from "@grpc/grpc-js";
import { GrpcCode, NsmError, messageOf } from "../errors.ts";
import type { CodeName } from "../errors.ts";

const REASON_KEY = "nsm-reason";
const REASON = /^[a-z0-9]+(-[a-z0-9]+)*$/;
const MAX_REASON_LENGTH = 64;
/** Longer messages are cut: trailers must fit the peer's header limits. */
const MAX_DETAILS_LENGTH = 2048;

/** What grpc-js says of a stream reset with REFUSED_STREAM, which promises that nothing was done (RFC 9113, §8.7). */
const REFUSED_DETAILS = "Stream refused by server";
/** Part of what grpc-js says of a call that it did not send, because its session had no second connection for it. */
export const SESSION_OVER = "the connection of this session has ended";
/** The reason of a call of which nothing reached the server: it may be made again. */
export const REFUSED = "stream-refused";

/** What grpc-js sends to end a call. */
export interface Status {
  readonly code: number;
  readonly details: string;
  readonly metadata?: Metadata;
}

const NAMES = new Map<number, CodeName>();
for (const [name, code] of Object.entries(GrpcCode)) if (isCodeName(name)) NAMES.set(code, name);

function isCodeName(name: string): name is CodeName {
  return name in GrpcCode && name !== "OK";
}

/** The status of a failed call. Anything but an NsmError is our bug: the peer learns only that. */
export function statusOf(error: unknown): Status {
  if (!(error instanceof NsmError)) return { code: GrpcCode.INTERNAL, details: "internal error" };
  const metadata = new Metadata();
  metadata.set(REASON_KEY, error.reason);
  // grpc-js throws on half a surrogate pair while it percent-encodes the text.
  return {
    code: GrpcCode[error.code],
    details: error.message.slice(0, MAX_DETAILS_LENGTH).toWellFormed(),
    metadata,
  };
}

/** The error of a failed call, as grpc-js reports it, made by the peer or by grpc-js itself; `target` names the peer. */
export function errorOfStatus(status: unknown, target: string): NsmError {
  if (!isStatus(status))
    return new NsmError("INTERNAL", "internal", `call to ${target}: ${messageOf(status)}`, status);
  const code = NAMES.get(status.code) ?? "UNKNOWN";
  const [reason] = status.metadata?.get(REASON_KEY) ?? [];
  if (typeof reason === "string" && reason.length <= MAX_REASON_LENGTH && REASON.test(reason))
    // Whether anything was done only grpc-js knows: the peer speaks of its own next hop.
    return new NsmError(code, reason === REFUSED ? "unavailable" : reason, status.details);
  if (code === "UNAVAILABLE" && (status.details === REFUSED_DETAILS || status.details.includes(SESSION_OVER)))
    return new NsmError(code, REFUSED, `${target}: ${status.details}`);
  const text = connectFault(status.details) ?? status.details;
  return new NsmError(code, code.toLowerCase().replaceAll("_", "-"), `${target}: ${text}`);
}

/** Why there was no connection, without what grpc-js says around it; undefined when it says anything else. */
export function connectFault(details: string): string | undefined {
  return /Last error: (?:Error: )?(.*?)(?: \([^()]*\))?\. Resolution note/.exec(details)?.[1];
}

function isStatus(value: unknown): value is Status {
  return (
    typeof value === "object" &&
    value !== null &&
    "code" in value &&
    typeof value.code === "number" &&
    "details" in value &&
    typeof value.details === "string" &&
    (!("metadata" in value) || value.metadata === undefined || value.metadata instanceof Metadata)
  );
}
