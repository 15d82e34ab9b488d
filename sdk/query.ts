/** Which records and connections a query means (docs/protocol.md, "Registry queries"). */
import { equals } from "@bufbuild/protobuf";
import type { Connection, MonitorScopeSelector, PathSegment } from "../api/gen/connection_pb.js";
import { MatchSchema } from "../api/gen/registry_pb.js";
import type { NetworkService, NetworkServiceEndpoint } from "../api/gen/registry_pb.js";
import { isSubset } from "./selector-template.ts";

/** Name, payload and matches, as far as the query sets them. */
export function matchesNetworkService(query: NetworkService, record: NetworkService): boolean {
  return (
    (query.name === "" || query.name === record.name) &&
    (query.payload === "" || query.payload === record.payload) &&
    (query.matches.length === 0 || sameMatches(query.matches, record.matches))
  );
}

function sameMatches(asked: NetworkService["matches"], present: NetworkService["matches"]): boolean {
  if (asked.length !== present.length) return false;
  return asked.every((match, i) => {
    const other = present[i];
    return other !== undefined && equals(MatchSchema, match, other);
  });
}

/**
 * Name, services, labels per service, a part of the URL and the second of expiry, as far as the query sets them.
 * A record without expiry fits no query that asks for one.
 */
export function matchesEndpoint(query: NetworkServiceEndpoint, record: NetworkServiceEndpoint): boolean {
  return (
    (query.name === "" || query.name === record.name) &&
    query.networkServiceNames.every((name) => record.networkServiceNames.includes(name)) &&
    sameLabels(query, record) &&
    (query.expirationTime === undefined || query.expirationTime.seconds === record.expirationTime?.seconds) &&
    record.url.includes(query.url)
  );
}

function sameLabels(query: NetworkServiceEndpoint, record: NetworkServiceEndpoint): boolean {
  return Object.entries(query.networkServiceLabels).every(([service, asked]) => {
    if (!Object.hasOwn(record.networkServiceLabels, service)) return false;
    return isSubset(asked.labels, record.networkServiceLabels[service]?.labels ?? {});
  });
}

/** Whether a monitor with this selector is told of the connection. An empty selector means every connection. */
export function matchesMonitorSelector(selector: MonitorScopeSelector, connection: Connection): boolean {
  const { networkServices, pathSegments } = selector;
  if (networkServices.length > 0 && !networkServices.includes(connection.networkService)) return false;
  return pathSegments.length === 0 || containsRun(connection.path?.pathSegments ?? [], pathSegments);
}

/** True when `run` fits a contiguous part of `path`. */
function containsRun(path: readonly PathSegment[], run: readonly PathSegment[]): boolean {
  for (let offset = 0; offset + run.length <= path.length; offset++) {
    if (run.every((asked, i) => fitsSegment(asked, path[offset + i]))) return true;
  }
  return false;
}

/** Empty members fit anything; expiry and metrics are not looked at. */
function fitsSegment(asked: PathSegment, segment: PathSegment | undefined): boolean {
  return (
    segment !== undefined &&
    (asked.name === "" || asked.name === segment.name) &&
    (asked.id === "" || asked.id === segment.id) &&
    (asked.token === "" || asked.token === segment.token)
  );
}
