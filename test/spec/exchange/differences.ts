/**
 * Calls in which our components behave otherwise than the recorded ones on purpose: predicates on what a call carries and on
 * what the recording says around it, beside the number of a record in DECISIONS.md.
 */
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { ConnectionSchema, State } from "../../../api/gen/connection_pb.js";
import type { Connection } from "../../../api/gen/connection_pb.js";
import { NetworkServiceRequestSchema } from "../../../api/gen/networkservice_pb.js";
import {
  NetworkServiceEndpointQuerySchema,
  NetworkServiceEndpointResponseSchema,
  NetworkServiceEndpointSchema,
  NetworkServiceQuerySchema,
} from "../../../api/gen/registry_pb.js";
import { GrpcCode } from "../../../sdk/errors.ts";
import { claimedExpiryMs } from "../../../sdk/jwt.ts";
import { decodeMessage } from "../../../sdk/message.ts";
import { readRegistrationPath } from "../../../sdk/registry-path.ts";
import { TOKEN_EXPIRES_KEY, TOKEN_KEY } from "../../../sdk/token.ts";
import type { Bench } from "./bench.ts";
import { componentOf, isKilled, timeOf } from "./recording.ts";
import type { RecordedCall, RecordedCase } from "./recording.ts";
import type { Report } from "./report.ts";

export interface CallDifference {
  readonly record: string;
  /**
   * `unsent`: ours does not make the call. `asks`: ours passes it on where the recorded one decided by itself.
   * `content`: request or answer are others.
   */
  readonly kind: "unsent" | "asks" | "content";
  /** Which side of the call it is that differs. */
  readonly of: "client" | "server";
  /** The lines of a finding that are meant. */
  readonly meant: RegExp;
  readonly differs: (call: RecordedCall, recorded: RecordedCase) => boolean;
}

/** Lines of findings. */
const NONE = /^(?!)/;
/** Ours goes on listing what the recorded one has dropped. */
const LATER = /^ours does not send message |^message \d+ of ours is not recorded: /;
/** A full record in place of what was left of it. */
const MEMBERS = /^\.(networkServiceNames|networkServiceLabels|initialRegistrationTime|pathIds)\b/;
const UNREACHABLE = /^ours fails: UNAVAILABLE /;
const ORPHAN = /^\.state: ours "DOWN", recorded nothing$/;
/** What would have been answered is not recorded. */
const FAILS = /^ours fails: UNAVAILABLE not recorded/;
const DELETED = /^message \d+ of ours is not recorded: DELETE /;

const ENDPOINTS = "/registry.NetworkServiceEndpointRegistry/";
const SERVICES = "/registry.NetworkServiceRegistry/";
const REQUEST = "/networkservice.NetworkService/Request";
const MONITOR = "/connection.MonitorConnection/MonitorConnections";
const CLOSE = "/networkservice.NetworkService/Close";

export const DIFFERENCES: readonly CallDifference[] = [
  { record: "D27", kind: "unsent", of: "client", meant: NONE, differs: unregistersWithItsOwnName },
  { record: "D27", kind: "content", of: "client", meant: MEMBERS, differs: unregistersWhatExpired },
  { record: "D27", kind: "content", of: "server", meant: LATER, differs: missesWhatHasNotExpired },
  { record: "D28", kind: "asks", of: "server", meant: NONE, differs: knowsTheOwnerOfAService },
  { record: "D29", kind: "unsent", of: "client", meant: NONE, differs: closesBeforeReselecting },
  { record: "D30", kind: "content", of: "server", meant: UNREACHABLE, differs: closesTowardsTheDead },
  { record: "D31", kind: "content", of: "server", meant: DELETED, differs: outlivesTheClaim },
  { record: "D41", kind: "content", of: "client", meant: ORPHAN, differs: closesUnasked },
  { record: "D47", kind: "asks", of: "server", meant: FAILS, differs: unregistersTheUnknown },
];

export function differenceOf(
  kind: CallDifference["kind"],
  call: RecordedCall,
  recorded: RecordedCase,
  component: string,
): CallDifference | undefined {
  return DIFFERENCES.find(
    (each) => each.kind === kind && call[each.of] === component && each.differs(call, recorded),
  );
}

/** A proxy asks for the rules of a service of its domain, where the recorded one asked for the endpoint alone. */
export const FINDS_OF_PROXIES = "D64";

/** The record of a Find that nobody recorded and that is meant. */
export function findDifference({ component }: Pick<Bench, "component">, path: string): { record?: string } {
  const isMeant = component.role === "nsmgr-proxy" && path.endsWith("/Find");
  return isMeant ? { record: FINDS_OF_PROXIES } : {};
}

/** Findings of calls that differ on purpose are meant; a call that was to differ and does not is a finding. */
export function settleDifferences(recorded: RecordedCase, component: string, report: Report): void {
  const found = report.findings.splice(0);
  const differing = [...report.seen].flatMap((call) => {
    const kinds = ["content", "asks"] as const;
    const difference = kinds.map((kind) => differenceOf(kind, call, recorded, component)).find(Boolean);
    return difference === undefined ? [] : [{ call, difference }];
  });
  for (const finding of found) {
    const difference = differing.find(({ call }) => call === finding.call)?.difference;
    const isMeant = (line: string) => difference?.meant.test(line) === true;
    report.add({ ...finding, lines: finding.lines.filter((line) => !isMeant(line)) });
    if (difference !== undefined)
      report.add({ ...finding, lines: finding.lines.filter(isMeant), record: difference.record });
  }
  for (const { call, difference } of differing)
    if (!found.some((finding) => finding.call === call))
      report.add({ component, call, lines: [`agrees: the predicate of ${difference.record} is too wide`] });
}

/** A manager's Unregister at expiry goes out with index 0 over a path that it is not the first of; registries refuse it. */
function unregistersWithItsOwnName({ method, metadata, status }: RecordedCall): boolean {
  if (method !== `${ENDPOINTS}Unregister` || status?.code !== GrpcCode.PERMISSION_DENIED) return false;
  const path = readRegistrationPath({ get: (key) => metadata[key] ?? [] });
  return path?.index === 0 && path.tokens.length > 1;
}

/** A manager takes out of the registry what it has let expire. */
function unregistersWhatExpired(call: RecordedCall, recorded: RecordedCase): boolean {
  if (call.method !== `${ENDPOINTS}Unregister` || componentOf(recorded, call.client).role !== "nsmgr")
    return false;
  const expiryMs = lastExpiry(call, recorded);
  return expiryMs !== undefined && expiryMs <= timeOf(recorded, call.begin);
}

/** A record is not found any more, or told to be gone, before its time. */
function missesWhatHasNotExpired(call: RecordedCall, recorded: RecordedCase): boolean {
  if (call.method !== `${ENDPOINTS}Find` || componentOf(recorded, call.server).role !== "registry")
    return false;
  return droppedEarly(recorded, call.server).some(
    ({ name, services, at }) =>
      (call.end ?? Infinity) >= at &&
      namesIn(call).some((asked) => asked === name || services.includes(asked)) &&
      (call.begin >= at || call.responses.some((response) => response.at >= at)),
  );
}

/** A manager refuses a service of somebody else without asking the registry. */
function knowsTheOwnerOfAService(call: RecordedCall, recorded: RecordedCase): boolean {
  const changes = [`${SERVICES}Register`, `${SERVICES}Unregister`].includes(call.method);
  const refused = call.status?.code === GrpcCode.PERMISSION_DENIED && call.metadata["path"] !== undefined;
  return changes && refused && componentOf(recorded, call.server).role === "nsmgr";
}

/** A manager answers for itself to the Unregister of a name that it never had. */
function unregistersTheUnknown(call: RecordedCall, recorded: RecordedCase): boolean {
  if (call.method !== `${ENDPOINTS}Unregister` || componentOf(recorded, call.server).role !== "nsmgr")
    return false;
  const isAccepted = call.status?.code === 0 && call.metadata["path"] !== undefined;
  return isAccepted && lastExpiry(call, recorded) === undefined;
}

/** A client closes a connection that it asks for anew right after. */
function closesBeforeReselecting(call: RecordedCall, recorded: RecordedCase): boolean {
  const { calls } = recorded;
  if (call.method !== CLOSE || componentOf(recorded, call.client).role !== "nsc") return false;
  const { id } = closed(call);
  const next = calls.find(
    (each) => each.client === call.client && each.method === REQUEST && each.begin > call.begin,
  );
  const connection = next && decodeMessage(NetworkServiceRequestSchema, firstBytes(next)).connection;
  return (
    connection?.id === id && connection.state === State.RESELECT_REQUESTED && next?.server === call.server
  );
}

/** A Close fails at the last hop before an endpoint that is dead. */
function closesTowardsTheDead(call: RecordedCall, recorded: RecordedCase): boolean {
  if (call.method !== CLOSE || (call.status?.code ?? 0) === 0) return false;
  return (
    componentOf(recorded, call.server).role === "forwarder" &&
    isKilled(recorded, closed(call).networkServiceEndpointName, call.begin)
  );
}

/** A hop on the way closes what no hop before it asks it to close at that moment. */
function closesUnasked(call: RecordedCall, recorded: RecordedCase): boolean {
  return (
    call.method === CLOSE &&
    componentOf(recorded, call.client).role !== "nsc" &&
    !recorded.calls.some(
      ({ method, server, begin, end = Infinity }) =>
        method === CLOSE && server === call.client && begin <= call.begin && call.begin <= end,
    )
  );
}

/** A monitor stream is open at a moment when the lease of its client has run out by the claim of the token, but not by the expiry beside it. */
function outlivesTheClaim(call: RecordedCall, recorded: RecordedCase): boolean {
  if (call.method !== MONITOR) return false;
  const end = call.end ?? Infinity;
  const request = recorded.calls.findLast(
    ({ method, client, server, begin }) =>
      method === REQUEST && client === call.client && server === call.server && begin < end,
  );
  const claimMs = claimedExpiryMs(request?.metadata[TOKEN_KEY]?.[0] ?? "");
  const besideMs = Date.parse(request?.metadata[TOKEN_EXPIRES_KEY]?.[0] ?? "");
  const closeMs = timeOf(recorded, end) + (request?.timeoutMs ?? 0);
  return claimMs !== undefined && claimMs <= closeMs && closeMs < besideMs;
}

interface Dropped {
  readonly name: string;
  readonly services: readonly string[];
  readonly at: number;
}

/** Endpoints that a registry tells to be gone though their time has not come and nobody has taken them out. */
function droppedEarly(recorded: RecordedCase, server: string): Dropped[] {
  const finds = recorded.calls.filter((call) => call.server === server && call.method === `${ENDPOINTS}Find`);
  return finds.flatMap(({ responses }) =>
    responses.flatMap(({ at, bytes }): Dropped[] => {
      const found = decodeMessage(NetworkServiceEndpointResponseSchema, Buffer.from(bytes, "base64"));
      const entry = found.networkServiceEndpoint;
      if (!found.deleted || entry?.expirationTime === undefined) return [];
      const isEarly = timestampMs(entry.expirationTime) > timeOf(recorded, at);
      const wasTaken = recorded.calls.some(
        (call) =>
          call.server === server &&
          call.method === `${ENDPOINTS}Unregister` &&
          call.status?.code === 0 &&
          call.begin <= at &&
          decodeMessage(NetworkServiceEndpointSchema, firstBytes(call)).name === entry.name,
      );
      return isEarly && !wasTaken ? [{ name: entry.name, services: entry.networkServiceNames, at }] : [];
    }),
  );
}

/** Expiry that the last successful registration of the same name was answered with. */
function lastExpiry(call: RecordedCall, { calls }: RecordedCase): number | undefined {
  const { name } = decodeMessage(NetworkServiceEndpointSchema, firstBytes(call));
  const answers = calls
    .filter(
      (each) =>
        each.method === `${ENDPOINTS}Register` && each.server === call.server && each.begin < call.begin,
    )
    .flatMap(({ responses }) => responses)
    .map(({ bytes }) => decodeMessage(NetworkServiceEndpointSchema, Buffer.from(bytes, "base64")))
    .filter((entry) => entry.name === name);
  const expiry = answers.at(-1)?.expirationTime;
  return expiry && timestampMs(expiry);
}

/** Names of services and endpoints that a query asks for. */
function namesIn(call: RecordedCall): readonly string[] {
  if (call.method === `${SERVICES}Find`)
    return [decodeMessage(NetworkServiceQuerySchema, firstBytes(call)).networkService?.name ?? ""];
  if (call.method !== `${ENDPOINTS}Find`) return [];
  const query = decodeMessage(NetworkServiceEndpointQuerySchema, firstBytes(call)).networkServiceEndpoint;
  return [query?.name ?? "", ...(query?.networkServiceNames ?? [])];
}

function closed(call: RecordedCall): Connection {
  return decodeMessage(ConnectionSchema, firstBytes(call));
}

function firstBytes({ requests }: RecordedCall): Uint8Array {
  return Buffer.from(requests[0]?.bytes ?? "", "base64");
}
