/** Streams that ours opens, beside those that were recorded. */
import { clone, equals, isMessage, toJson } from "@bufbuild/protobuf";
import type { DescMethod, JsonValue, Message } from "@bufbuild/protobuf";
import {
  ConnectionEventSchema,
  ConnectionEventType,
  ConnectionSchema,
} from "../../../api/gen/connection_pb.js";
import type { Connection } from "../../../api/gen/connection_pb.js";
import type { Bench } from "./bench.ts";
import { differencesOf } from "./compare.ts";
import { findDifference } from "./differences.ts";
import { normalRequest } from "./normalise.ts";
import { isKilled, methodOf, requestOf } from "./recording.ts";
import type { RecordedCall } from "./recording.ts";

/** Each Find and monitor of ours has a recorded one that asks the same: it may watch where that one did not, or name its segment only. */
export function checkStream(
  bench: Bench,
  outgoing: readonly RecordedCall[],
  server: string,
  { parent, name }: DescMethod,
  ours: JsonValue,
): void {
  const path = `/${parent.typeName}/${name}`;
  const candidates = outgoing.filter((call) => call.method === path && call.server === server);
  const fits = candidates.some((call) => {
    const recorded = normalRequest(bench, call, toJson(methodOf(call).input, requestOf(call)), "recorded");
    return differencesOf(normalRequest(bench, call, ours, "ours"), recorded, bench.subject).length === 0;
  });
  bench.report.count(`${bench.component.role} sent ${name}`);
  // Calls are recorded where they are served: a process that is killed takes those that are open with it.
  if (fits || isKilled(bench.recorded, server, Infinity)) return;
  const line = `opens ${path} to ${server} with ${JSON.stringify(ours)}, which nobody recorded`;
  const record = findDifference(bench, path);
  bench.report.add({ component: bench.component.name, call: undefined, lines: [line], ...record });
}

/** Go opens several streams for one connection, which tell the same: ours hears the one that has been open for longest. */
export function followed(
  outgoing: readonly RecordedCall[],
  server: string,
  at: number,
): RecordedCall | undefined {
  return outgoing.find(
    (call) =>
      call.server === server &&
      call.method.endsWith("/MonitorConnections") &&
      call.begin <= at &&
      at <= (call.end ?? Infinity),
  );
}

/** What a recorded monitor says without the refreshes that change leases alone: ours does not tell of them (D38). */
export function withoutRefreshes(messages: readonly Message[]): readonly Message[] {
  const last = new Map<string, Connection>();
  return messages.filter((message) => {
    if (!isMessage(message, ConnectionEventSchema)) return true;
    const shown = Object.values(message.connections);
    const isRefresh =
      message.type === ConnectionEventType.UPDATE &&
      shown.every((connection) => {
        const before = last.get(connection.id);
        return before !== undefined && equals(ConnectionSchema, leaseless(before), leaseless(connection));
      });
    for (const connection of shown) last.set(connection.id, connection);
    return !isRefresh;
  });
}

function leaseless(connection: Connection): Connection {
  const copy = clone(ConnectionSchema, connection);
  for (const segment of copy.path?.pathSegments ?? []) {
    segment.token = "";
    delete segment.expires;
  }
  return copy;
}
