/** path.json: own segment, caller's position, trimming and tokens of connections; path and ids of registrations. */
import { create, fromJson, toJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { ConnectionSchema, PathSegmentSchema } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { NsmError } from "../../sdk/errors.ts";
import { enterHop, leaveHop, trimPath } from "../../sdk/path.ts";
import type { CallerPosition } from "../../sdk/path.ts";
import {
  adoptAnswer,
  enterRegistration,
  leaveRegistration,
  readRegistrationPath,
  writeRegistrationPath,
} from "../../sdk/registry-path.ts";
import type { RegistrationPath } from "../../sdk/registry-path.ts";
import { instantMs, parseInstant } from "../../sdk/rfc3339.ts";
import { placeTokens, readTokenMetadata } from "../../sdk/token.ts";
import type { PathToken } from "../../sdk/token.ts";
import { describeVectors, outcomeOf, same, sameError, vectorKind } from "./support.ts";
import type { Difference, VectorError } from "./support.ts";

interface HopVector {
  readonly op: "request" | "close";
  readonly me: string;
  readonly connection: JsonValue;
  readonly downstream?: "echo" | "one-more" | "other-position";
  readonly forwarded?: JsonValue;
  readonly response?: JsonValue;
  readonly error?: VectorError;
}

/** `parts`: how many chains of this process the connection passes, all under one name. */
function hop(parts: number) {
  return vectorKind<HopVector>(async (vector) => {
    const outcome = await outcomeOf(() => {
      const connection = readConnection(vector);
      const newId = idMaker();
      const callers = Array.from({ length: parts }, () => enterHop(connection, vector.me, newId));
      same("forwarded", json(connection), json(fromJson(ConnectionSchema, vector.forwarded ?? {})));
      if (vector.op === "close") return undefined;
      answer(connection, vector.downstream);
      for (const caller of callers.reverse()) leaveHop(connection, caller);
      return json(connection);
    });
    const response = sameError(outcome, vector.error);
    if (vector.error === undefined) same("response", response, vector.response);
  });
}

const trim = vectorKind<{
  me: string;
  connection: JsonValue;
  passThrough: boolean;
  downstreamResponse: JsonValue;
  response: JsonValue;
}>((vector) => {
  const connection = fromJson(ConnectionSchema, vector.connection);
  const caller: CallerPosition = enterHop(connection, vector.me, idMaker());
  const own = connection.path?.index ?? 0;
  const response = fromJson(ConnectionSchema, vector.downstreamResponse);
  if (!vector.passThrough) trimPath(response, own);
  leaveHop(response, caller);
  same("response", json(response), vector.response);
});

const token = vectorKind<{
  me: string;
  connection: JsonValue;
  metadata: readonly string[];
  ownToken: string | null;
  ownExpires: string;
  forwarded?: JsonValue;
  error?: VectorError;
}>(async (vector) => {
  const outcome = await outcomeOf(() => {
    const connection = fromJson(ConnectionSchema, vector.connection);
    enterHop(connection, vector.me, idMaker());
    const own = pathToken(vector.ownToken, vector.ownExpires);
    if (connection.path !== undefined)
      placeTokens(connection.path, readTokenMetadata(flat(vector.metadata)), own);
    return json(connection);
  });
  const forwarded = sameError(outcome, vector.error);
  if (vector.error === undefined)
    same("forwarded", forwarded, json(fromJson(ConnectionSchema, vector.forwarded ?? {})));
});

interface RecordedPath {
  readonly Index: number;
  readonly PathSegments: readonly { readonly token: string }[] | null;
}

interface RegistryServerVector {
  op: "register" | "unregister";
  metadata: Readonly<Record<string, readonly string[]>>;
  ownToken: string;
  pathIds: readonly string[];
  downstreamAppends?: readonly string[];
  downstreamFails?: boolean;
  forwardedPath?: RecordedPath;
  forwardedPathIds?: readonly string[];
  header: Readonly<Record<string, readonly string[]>> | null;
  responsePathIds?: readonly string[];
  error?: VectorError;
}

/** Go read a path from the header although a member stands there twice. */
const readTwice: Difference<RegistryServerVector> = {
  record: "D7",
  differs: ({ metadata, forwardedPath }) =>
    (forwardedPath?.PathSegments ?? []).length > 0 &&
    [/"index"\s*:/gi, /"pathsegments"\s*:/gi].some(
      (name) => (metadata["path"]?.at(-1)?.match(name) ?? []).length > 1,
    ),
};

const registryServer = vectorKind<RegistryServerVector>(
  async (vector) => {
    const outcome = await outcomeOf(() => {
      const metadata = record(vector.metadata);
      const entered = enterRegistration({
        path: readRegistrationPath(metadata),
        pathIds: vector.pathIds,
        callerToken: readTokenMetadata(metadata)?.token ?? "",
        ownToken: vector.ownToken,
      });
      same("forwarded path", entered.path, vector.forwardedPath && ourPath(vector.forwardedPath));
      same("forwarded path ids", entered.pathIds, vector.forwardedPathIds);
      if (vector.downstreamFails) throw new NsmError("UNKNOWN", "downstream", "downstream says no");
      const tokens = [...entered.path.tokens, ...(vector.downstreamAppends ?? [])];
      const header = leaveRegistration(entered, { ...entered.path, tokens });
      same("header", header && sent(header), vector.header === null ? undefined : parsed(vector.header));
      return entered.pathIds;
    });
    const pathIds = sameError(outcome, vector.error);
    if (vector.responsePathIds !== undefined) same("path ids in the answer", pathIds, vector.responsePathIds);
  },
  [readTwice],
);

const registryClient = vectorKind<{
  path: RecordedPath;
  sentMetadata: Readonly<Record<string, readonly string[]>>;
  answerHeader: Readonly<Record<string, readonly string[]>> | null;
  pathAfter: RecordedPath;
}>((vector) => {
  const path = ourPath(vector.path);
  same("sent metadata", sent(path), parsed(vector.sentMetadata));
  same("path after", adoptAnswer(path, record(vector.answerHeader ?? {})), ourPath(vector.pathAfter));
});

describeVectors("path.json", {
  server: hop(1),
  client: hop(1),
  "server+client": hop(2),
  trim,
  token,
  "registry-server": registryServer,
  "registry-client": registryClient,
});

function readConnection({ connection, op }: HopVector): Connection {
  if (connection !== null) return fromJson(ConnectionSchema, connection);
  // Only calls inside a process can lack a connection. A request then begins one, a close has nothing to end.
  if (op === "request") return create(ConnectionSchema);
  throw new NsmError("INVALID_ARGUMENT", "connection-missing", "close without a connection");
}

function answer(connection: Connection, downstream: HopVector["downstream"]): void {
  if (downstream === undefined || downstream === "echo" || connection.path === undefined) return;
  if (downstream === "one-more") trimPath(connection, connection.path.index);
  connection.path.pathSegments.push(create(PathSegmentSchema, { name: "beyond", id: "beyond-id" }));
  if (downstream === "one-more") return;
  connection.path.index = connection.path.pathSegments.length - 1;
  connection.id = "beyond-id";
}

function idMaker(): () => string {
  let made = 0;
  return () => `NEW-${++made}`;
}

function pathToken(text: string | null, expiresText: string): PathToken {
  const expires = parseInstant(expiresText);
  if (text === null || expires === undefined) throw new NsmError("INTERNAL", "no-token", "no key");
  return { token: text, expires, expiresMs: instantMs(expires) };
}

function flat(pairs: readonly string[]) {
  return { get: (key: string) => pairs.filter((_, i) => i % 2 === 1 && pairs[i - 1] === key) };
}

function record(metadata: Readonly<Record<string, readonly string[]>>) {
  return { get: (key: string) => metadata[key] ?? [] };
}

function ourPath({ Index, PathSegments }: RecordedPath): RegistrationPath {
  return { index: Index, tokens: (PathSegments ?? []).map((segment) => segment.token) };
}

/** The JSON that we send, as a JSON reader sees it: how characters are escaped is free. */
function sent(path: RegistrationPath): unknown {
  return parsed({ path: [writeRegistrationPath(path)] });
}

function parsed(metadata: Readonly<Record<string, readonly string[]>>): unknown {
  return Object.fromEntries(
    Object.entries(metadata).map(([key, values]) => [key, values.map((v) => JSON.parse(v))]),
  );
}

function json(connection: Connection): JsonValue {
  return toJson(ConnectionSchema, connection);
}
