/** A chain as its client sees it: the path up to this endpoint, and the one that begins here (docs/protocol.md, "Chaining"). Pure. */
import { clone, create } from "@bufbuild/protobuf";
import { ConnectionSchema, PathSegmentSchema } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { ConnectionContextSchema } from "../../api/gen/connectioncontext_pb.js";
import { CHAIN_KEY } from "../../sdk/chain-mark.ts";

/**
 * The answer for the hop before: `asked` with its labels, mechanism and ids, and of `answer` the context and what lies behind. `chain`: the mark
 * as that hop sent it, or is to send it from now on.
 */
export function glue(asked: Connection, answer: Connection, endpointName: string, chain: string): Connection {
  const glued = clone(ConnectionSchema, asked);
  glued.networkServiceEndpointName = endpointName;
  glued.payload = asked.payload || answer.payload;
  glued.context = clone(ConnectionContextSchema, answer.context ?? create(ConnectionContextSchema));
  glued.context.extraContext[CHAIN_KEY] = chain;
  const index = glued.path?.index ?? 0;
  const own = glued.path?.pathSegments[index];
  const [first, ...behind] = answer.path?.pathSegments ?? [];
  if (glued.path === undefined || own === undefined || first === undefined) return glued;
  // Our segment of an answer holds our token for the hop behind; the id is the one that the hop before knows.
  const joint = create(PathSegmentSchema, { ...first, name: own.name, id: own.id });
  glued.path.pathSegments = [...glued.path.pathSegments.slice(0, index), joint, ...behind];
  return glued;
}

/** Names of the hops that a path of an earlier way shows behind our own segment, nearest first. */
export function namesBehind({ path }: Connection): readonly string[] {
  return path?.pathSegments.slice(path.index + 1).map(({ name }) => name) ?? [];
}
