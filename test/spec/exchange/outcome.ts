/** How a call of ours ended, as something to compare. */
import { toJson } from "@bufbuild/protobuf";
import type { Message } from "@bufbuild/protobuf";
import { GrpcCode, NsmError } from "../../../sdk/errors.ts";
import { memberOf, textOf } from "./places.ts";
import { methodOf } from "./recording.ts";
import type { RecordedCall } from "./recording.ts";

/** Go lists in any order; what it tells of one name stays in order. */
export function inOrder(call: RecordedCall, messages: readonly Message[]): Message[] {
  const nameIn = (message: Message) => {
    const json = toJson(methodOf(call).output, message);
    const entry = memberOf(json, "networkService") ?? memberOf(json, "networkServiceEndpoint");
    return textOf(memberOf(entry, "name"));
  };
  if (methodOf(call).name !== "find") return [...messages];
  return messages.toSorted((a, b) => (nameIn(a) < nameIn(b) ? -1 : nameIn(a) > nameIn(b) ? 1 : 0));
}

/** The kind of an event, and the beginning of the message. */
export function textOfMessage(call: RecordedCall, message: Message): string {
  const json = toJson(methodOf(call).output, message);
  return `${textOf(memberOf(json, "type"))} ${JSON.stringify(json).slice(0, 300)}`;
}

/** A recorded code 2 is a plain error there and fits any of ours. */
export function failureLines(error: unknown, { status }: RecordedCall): readonly string[] {
  if (!(error instanceof NsmError)) return [`ours fails with no NsmError: ${String(error)}`];
  const code = GrpcCode[error.code];
  const fits =
    status !== undefined && status.code !== 0 && [code, GrpcCode.UNKNOWN as number].includes(status.code);
  return fits ? [] : [`ours fails: ${error.code} ${error.message}, recorded is ${JSON.stringify(status)}`];
}

export type Settled = { readonly value: unknown } | { readonly error: unknown };

export async function settledWithin(
  promise: Promise<unknown>,
  timeoutMs: number | undefined,
): Promise<Settled> {
  const result = promise.then(
    (value): Settled => ({ value }),
    (error: unknown): Settled => ({ error }),
  );
  if (timeoutMs === undefined) return await result;
  const late = Promise.withResolvers<Settled>();
  const timer = setTimeout(() => late.resolve({ error: new Error("our code hangs") }), timeoutMs);
  try {
    return await Promise.race([result, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Lets everything that is ready run. */
export async function settled(): Promise<void> {
  for (let i = 0; i < 8; i++) await new Promise<void>((resolve) => setImmediate(resolve));
}

export function asStream(value: unknown): AsyncIterable<Message> {
  if (typeof value === "object" && value !== null && Symbol.asyncIterator in value)
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- Handlers<S> has checked the method's type
    return value as AsyncIterable<Message>;
  throw new Error("the handler of a stream returns no stream");
}

export function isFunction(value: unknown): value is (request: Message, caller: unknown) => unknown {
  return typeof value === "function";
}
