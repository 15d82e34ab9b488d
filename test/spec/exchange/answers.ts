/** Recorded answers as they would have reached ours, and recorded failures as the errors that they become. */
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { GrpcCode, NsmError } from "../../../sdk/errors.ts";
import type { CodeName } from "../../../sdk/errors.ts";
import type { Bench } from "./bench.ts";
import { memberOf } from "./places.ts";
import type { RecordedCall } from "./recording.ts";

/** A recorded message as it would have reached ours: with our names, and addresses in place of descriptors. */
export function localise({ subject, places }: Bench, json: JsonValue): JsonValue {
  const withPlaces = (value: JsonValue): JsonValue => {
    if (typeof value === "string") return places.toOurs(value);
    if (Array.isArray(value)) return value.map(withPlaces);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, withPlaces(inner)]));
  };
  return withPlaces(subject.names.toOurs(json));
}

/** The recorded components have no MTU. Others echo it, or lower it to that of the tunnel. */
export function withMtu(answer: JsonValue, request: JsonValue): JsonValue {
  const context = memberOf(answer, "context");
  if (!isObject(answer) || context === undefined || !isObject(context)) return answer;
  const asked = Number(memberOf(memberOf(memberOf(request, "connection"), "context"), "MTU") ?? 0);
  const offers = memberOf(request, "mechanismPreferences");
  const offer = Array.isArray(offers) ? memberOf(memberOf(offers[0], "parameters"), "MTU") : undefined;
  return { ...answer, context: { ...context, MTU: Math.min(asked, Number(offer ?? asked)) } };
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const CODES = new Map(Object.entries(GrpcCode).map(([name, code]) => [code as number, name]));

export function failureOf({ n, status }: RecordedCall): NsmError {
  const name = CODES.get(status?.code ?? GrpcCode.UNKNOWN) ?? "UNKNOWN";
  if (!isCode(name)) throw new Error(`call ${n} has not failed`);
  return new NsmError(name, name.toLowerCase().replaceAll("_", "-"), status?.message ?? "");
}

function isCode(name: string): name is CodeName {
  return name !== "OK" && name in GrpcCode;
}

export function unreachable(why: string): NsmError {
  return new NsmError("UNAVAILABLE", "unreachable", why);
}
