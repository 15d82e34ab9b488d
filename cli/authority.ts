/** `nsm authority`: asks the identity authority of this machine about its keys (docs/identity.md, "Keys that change"). */
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { Authority } from "../api/gen/authority_pb.js";
import type { Keys, ListKeysResponse, ListKeysResponseSchema } from "../api/gen/authority_pb.js";
import { NsmError, messageOf } from "../sdk/errors.ts";
import { createPlainClient } from "../sdk/grpc/plain.ts";
import type { Method } from "../sdk/grpc/service.ts";
import { parseBundle } from "../sdk/spiffe/bundle.ts";
import { ExitCode } from "./exit-code.ts";
import { outputWidth, writeDocument } from "./get-print.ts";
import { printableLines } from "./printable.ts";
import { formatTable } from "./table.ts";
import type { Column } from "./table.ts";

const { listKeys, rotateKeys, withdrawKeys } = Authority.method;
const DEADLINE_MS = 10_000;

export type Output = "table" | "json" | "yaml";

export async function runListKeys(stateDir: string, output: Output): Promise<number> {
  const answer = await ask(stateDir, listKeys, {});
  if (output === "table") return printKeys(answer);
  writeDocument(output, valueOf(answer));
  return ExitCode.ok;
}

/** Prints nothing but the document, so that it can go to a file. */
export async function runBundle(stateDir: string): Promise<number> {
  const { document } = await ask(stateDir, listKeys, {});
  console.log(Buffer.from(document).toString());
  return ExitCode.ok;
}

export async function runRotate(stateDir: string, atOnce: boolean): Promise<number> {
  return printKeys(await ask(stateDir, rotateKeys, { atOnce }));
}

/** Exit code 4 when there are no such keys. */
export async function runWithdraw(stateDir: string, id: string): Promise<number> {
  try {
    return printKeys(await ask(stateDir, withdrawKeys, { id }));
  } catch (error) {
    if (!(error instanceof NsmError) || error.reason !== "no-such-keys") throw error;
    console.error(printableLines(`nsm: ${messageOf(error)}`));
    return ExitCode.notFound;
  }
}

async function ask<I extends DescMessage>(
  stateDir: string,
  method: Method<I, typeof ListKeysResponseSchema>,
  request: MessageInitShape<I>,
): Promise<ListKeysResponse> {
  const path = join(stateDir, "authority.sock");
  using client = createPlainClient({ kind: "unix", path });
  const deadlineMs = Date.now() + DEADLINE_MS;
  const settings = { metadata: {}, signal: undefined, deadlineMs, onReplaced: undefined };
  try {
    return (await client.calls.unary(method, create(method.input, request), settings)).response;
  } catch (error) {
    if (!(error instanceof NsmError) || error.code !== "UNAVAILABLE") throw error;
    const text = `no identity authority answers at ${path}: ${error.message}. Is "nsm identity" running on this machine, with that NSM_IDENTITY_STATE_DIR (--state-dir)?`;
    throw new NsmError("UNAVAILABLE", "no-authority", text, error);
  }
}

const COLUMNS: readonly Column<Keys>[] = [
  { title: "KEYS", value: ({ id }) => id },
  { title: "STATE", value: ({ state }) => state },
  { title: "SIGN FROM", value: ({ signsFrom }) => timeOf(signsFrom) ?? "-" },
  { title: "END", value: ({ notAfter }) => timeOf(notAfter) ?? "-" },
];

/** For programs: times as RFC 3339. */
function valueOf({ trustDomain, keys, document }: ListKeysResponse): object {
  const { sequence } = parseBundle(document);
  return {
    trustDomain,
    sequence: sequence === undefined ? null : Number(sequence),
    keys: keys.map(({ id, state, signsFrom, notAfter }) => ({
      id,
      state,
      signsFrom: timeOf(signsFrom),
      notAfter: timeOf(notAfter),
    })),
  };
}

function printKeys({ trustDomain, keys, document }: ListKeysResponse): number {
  const { sequence, certificates } = parseBundle(document);
  console.log(
    `${trustDomain}: ${certificates.length} CA certificate${certificates.length === 1 ? "" : "s"}, sequence ${sequence ?? "-"}`,
  );
  for (const line of formatTable(keys, COLUMNS, [], outputWidth())) console.log(line);
  return ExitCode.ok;
}

function timeOf(timestamp: Timestamp | undefined): string | undefined {
  return timestamp && new Date(timestampMs(timestamp)).toISOString();
}
