/** A connection as operators see it: nothing in it lets them act in somebody's place (docs/protocol.md, "Looking"). Pure. */
import { createHash } from "node:crypto";
import { clone } from "@bufbuild/protobuf";
import { ConnectionSchema } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { CHAIN_KEY, readChainMark } from "../chain-mark.ts";

/**
 * Who knows the number of a chain can take it over: instead of it stands a hash, the same for all stretches of the chain. Tokens are no part of
 * what a monitor shows in any case.
 */
export function operatorView(connection: Connection): Connection {
  const mark = connection.context?.extraContext[CHAIN_KEY];
  if (mark === undefined) return connection;
  const copy = clone(ConnectionSchema, connection);
  if (copy.context !== undefined) copy.context.extraContext[CHAIN_KEY] = concealed(mark);
  return copy;
}

function concealed(text: string): string {
  const mark = readChainMark(text);
  const hash = createHash("sha256")
    .update(mark?.id ?? text)
    .digest("hex")
    .slice(0, 16);
  return `sha256:${hash}${mark === undefined || mark.passed === 0 ? "" : `/${mark.passed}`}`;
}
