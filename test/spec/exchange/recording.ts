/** exchange.json as data: what one running mesh of Go components said to one another (format: test/vectors/README.md). */
import { X509Certificate } from "node:crypto";
import type { DescMessage, Message } from "@bufbuild/protobuf";
import { MonitorConnection } from "../../../api/gen/connection_pb.js";
import { NetworkService } from "../../../api/gen/networkservice_pb.js";
import { NetworkServiceEndpointRegistry, NetworkServiceRegistry } from "../../../api/gen/registry_pb.js";
import { decodeMessage } from "../../../sdk/message.ts";

export interface RecordedMessage {
  readonly at: number;
  readonly bytes: string;
}

export type RecordedMetadata = Readonly<Record<string, readonly string[]>>;

export interface RecordedCall {
  readonly n: number;
  readonly client: string;
  readonly server: string;
  readonly network: "unix" | "tcp";
  readonly method: string;
  readonly metadata: RecordedMetadata;
  readonly timeoutMs?: number;
  readonly requests: readonly RecordedMessage[];
  readonly responses: readonly RecordedMessage[];
  readonly header: RecordedMetadata | null;
  /** Positions in the one order of the case. Without `end` the call was open when the case ended. */
  readonly begin: number;
  readonly end?: number;
  readonly status?: { readonly code: number; readonly message: string };
  /** Since `startedAt`. */
  readonly ms: number;
}

export interface RecordedComponent {
  readonly name: string;
  readonly role: string;
  readonly spiffeId: string;
  readonly certificate: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly listen?: readonly string[];
}

export interface RecordedStep {
  readonly at: number;
  readonly component: string;
  readonly do: string;
  readonly done?: number;
  readonly error?: string;
}

export interface RecordedCase {
  readonly name: string;
  readonly components: readonly RecordedComponent[];
  readonly steps: readonly RecordedStep[];
  readonly calls: readonly RecordedCall[];
  readonly startedAt: string;
  readonly endedAt: string;
}

const METHODS = new Map(
  [NetworkService, MonitorConnection, NetworkServiceRegistry, NetworkServiceEndpointRegistry]
    .flatMap((service) => service.methods)
    .map((method) => [`/${method.parent.typeName}/${method.name}`, method]),
);

export interface RecordedMethod {
  readonly service: string;
  /** `register`, `find`, … */
  readonly name: string;
  readonly input: DescMessage;
  readonly output: DescMessage;
  readonly isStream: boolean;
}

/** Throws for a method that the mesh does not have. */
export function methodOf({ method }: Pick<RecordedCall, "method">): RecordedMethod {
  const found = METHODS.get(method);
  if (found === undefined) throw new Error(`unknown method ${method}`);
  const { parent, localName: name, input, output, methodKind } = found;
  return { service: parent.typeName, name, input, output, isStream: methodKind !== "unary" };
}

export function requestOf(call: RecordedCall): Message {
  const [request] = call.requests;
  if (request === undefined) throw new Error(`call ${call.n} has no request`);
  return decodeMessage(methodOf(call).input, Buffer.from(request.bytes, "base64"));
}

export function responsesOf(call: RecordedCall): Message[] {
  return call.responses.map(({ bytes }) =>
    decodeMessage(methodOf(call).output, Buffer.from(bytes, "base64")),
  );
}

/** The component of that name; throws when the case has none. */
export function componentOf(recorded: RecordedCase, name: string): RecordedComponent {
  const found = recorded.components.find((component) => component.name === name);
  if (found === undefined) throw new Error(`case ${recorded.name} has no component ${name}`);
  return found;
}

export function certificateOf({ certificate }: RecordedComponent): X509Certificate {
  return new X509Certificate(certificate);
}

/** Wall clock of a position: that of the last call that had begun. */
export function timeOf(recorded: RecordedCase, position: number): number {
  const begun = recorded.calls.filter(({ begin }) => begin <= position).map(({ ms }) => ms);
  return Date.parse(recorded.startedAt) + Math.max(0, ...begun);
}

/** NSM_MAX_TOKEN_LIFETIME of the recorded processes, from what their tokens say, in whole seconds. */
export function tokenLifetimeMs(recorded: RecordedCase): number {
  const startMs = Date.parse(recorded.startedAt);
  const lives = recorded.calls.flatMap(({ metadata, ms }) =>
    (metadata["nsm-client-token-expires"] ?? []).map((expires) => Date.parse(expires) - startMs - ms),
  );
  return Math.round(Math.max(1000, ...lives) / 1000) * 1000;
}

/** True when that component was killed before the position. */
export function isKilled(recorded: RecordedCase, name: string, position: number): boolean {
  return recorded.steps.some(
    (step) => step.component === name && step.do === "killed" && step.at <= position,
  );
}

/** Name of the component of that role that `client` called. Throws when it called none. */
export function serverOf(recorded: RecordedCase, client: string, role: string): string {
  const names = recorded.calls.filter((call) => call.client === client).map((call) => call.server);
  const found = names.find((name) => componentOf(recorded, name).role === role);
  if (found === undefined) throw new Error(`${client} of case ${recorded.name} calls no ${role}`);
  return found;
}
