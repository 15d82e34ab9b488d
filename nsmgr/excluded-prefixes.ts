/** Adds the prefixes of the node's file to every request (docs/protocol.md, "Excluded prefixes"). */
import { create } from "@bufbuild/protobuf";
import { ConnectionContextSchema, IPContextSchema } from "../api/gen/connectioncontext_pb.js";
import type { Element } from "../sdk/chain.ts";
import { connectionOf } from "../sdk/elements/update-path.ts";

/** `current`: what is excluded now. A connection hears of changes with its next refresh. */
export function excludedPrefixes(current: () => readonly string[]): Element {
  return (next) => ({
    async request(request, ctx) {
      const connection = connectionOf(request);
      const context = (connection.context ??= create(ConnectionContextSchema));
      const ipContext = (context.ipContext ??= create(IPContextSchema));
      const known = new Set(ipContext.excludedPrefixes);
      ipContext.excludedPrefixes.push(...current().filter((prefix) => !known.has(prefix)));
      return await next.request(request, ctx);
    },
    close: (connection, ctx) => next.close(connection, ctx),
  });
}
