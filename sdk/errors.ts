/** The one error type of the mesh, and its mapping to gRPC status codes (docs/protocol.md, "Errors"). */

/** gRPC status numbers by name (grpc/doc/statuscodes.md). */
export const GrpcCode = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

export type CodeName = Exclude<keyof typeof GrpcCode, "OK">;

/**
 * A failure that crosses a boundary.
 *
 * `code` is the gRPC code a peer sees; `reason` a stable kebab-case word for programs (`service-not-found`);
 * `message` names what failed, the value, and what to do, and never holds a secret; `cause` stays in the logs.
 */
export class NsmError extends Error {
  override readonly name = "NsmError";
  readonly code: CodeName;
  readonly reason: string;

  constructor(code: CodeName, reason: string, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.reason = reason;
  }
}

/** `error` itself if it is ours, else an `NsmError` of the given code around it. */
export function asNsmError(error: unknown, code: CodeName, reason: string, doing: string): NsmError {
  if (error instanceof NsmError) return error;
  return new NsmError(code, reason, `${doing}: ${messageOf(error)}`, error);
}

/** The code that a peer sees of anything thrown. */
export function codeOf(error: unknown): CodeName {
  return error instanceof NsmError ? error.code : "INTERNAL";
}

/** The text of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` that Node puts on system errors (`ENOENT`), else undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
