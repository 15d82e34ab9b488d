/** Small lies in a recording, to see that a replay notices them. */
import { fromJson, toJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { encodeMessage } from "../../../sdk/message.ts";
import { memberOf } from "./places.ts";
import { componentOf, methodOf, requestOf, responsesOf } from "./recording.ts";
import type { RecordedCall, RecordedCase } from "./recording.ts";

export interface Mutation {
  readonly what: string;
  /** The component that is to notice it. */
  readonly role: string;
  /** The case with the lie in it; undefined when it has no place for it. */
  readonly mutate: (recorded: RecordedCase, component: string) => RecordedCase | undefined;
}

const REQUEST = "NetworkService/Request";

export const MUTATIONS: readonly Mutation[] = [
  {
    what: "a label that a manager sends",
    role: "nsmgr",
    mutate: inCall(sends(REQUEST, "forwarder"), inRequest(changeLabel)),
  },
  {
    what: "an id that a manager sends",
    role: "nsmgr",
    mutate: inCall(sends(REQUEST, "forwarder"), inRequest(changeFirstId)),
  },
  {
    what: "a token in a registration's path",
    role: "nsmgr",
    mutate: inCall(sends("EndpointRegistry/Register"), cutPath),
  },
  { what: "a code that a manager answers with", role: "nsmgr", mutate: inCall(refuses, changeCode) },
  { what: "a success that a manager refuses", role: "nsmgr", mutate: inCall(refuses, succeed) },
  {
    what: "an address that an endpoint gives",
    role: "nse",
    mutate: inCall(serves(REQUEST), inResponse(changeAddress)),
  },
  {
    what: "the endpoint that a forwarder chooses",
    role: "forwarder",
    mutate: inCall(sends(REQUEST, "nse"), inRequest(changeEndpoint)),
  },
  {
    what: "addresses that a forwarder plumbs",
    role: "forwarder",
    mutate: inCall(serves(REQUEST), inResponse(changeAddress)),
  },
  {
    what: "a call that a forwarder makes",
    role: "forwarder",
    mutate: without(sends("NetworkService/Close", "nse")),
  },
  {
    what: "a name that a registry stores",
    role: "registry",
    mutate: inCall(serves("EndpointRegistry/Register"), inResponse(changeName)),
  },
  { what: "an event that a registry sends", role: "registry", mutate: inCall(watches, dropLastResponse) },
  {
    what: "the service that a registry proxy asks another domain for",
    role: "registry-proxy",
    mutate: inEveryCall(sends("NetworkServiceRegistry/Find", "registry"), inRequest(changeAskedService)),
  },
  {
    what: "the domain of a service that a registry proxy tells of",
    role: "registry-proxy",
    mutate: inCall(serves("NetworkServiceRegistry/Find"), inResponse(changeAskedService)),
  },
  {
    what: "where a registry proxy says that an endpoint is",
    role: "registry-proxy",
    mutate: inCall(serves("EndpointRegistry/Find"), inResponse(changeUrl)),
  },
  {
    what: "the endpoint that a manager proxy asks a manager for",
    role: "nsmgr-proxy",
    mutate: inCall(sends(REQUEST, "nsmgr"), inRequest(changeEndpoint)),
  },
  {
    what: "the address that a manager proxy shows another domain",
    role: "nsmgr-proxy",
    mutate: inCall(sends(REQUEST, "nsmgr-proxy"), inRequest(changeTunnelEnd)),
  },
  {
    what: "the endpoint that a manager proxy answers with",
    role: "nsmgr-proxy",
    mutate: inCall(serves(REQUEST), inResponse(changeClosed)),
  },
  {
    what: "where a manager proxy says that an endpoint of another domain is",
    role: "nsmgr-proxy",
    mutate: inCall(serves("EndpointRegistry/Find"), inResponse(changeUrl)),
  },
  {
    what: "a close that a manager proxy passes on",
    role: "nsmgr-proxy",
    mutate: without(sends("NetworkService/Close", "nsmgr")),
  },
  {
    what: "the endpoint of a connection that a client closes",
    role: "nsc",
    mutate: inCall(sends("NetworkService/Close", "nsmgr"), inRequest(changeClosed)),
  },
  {
    what: "the moment of a client's refresh",
    role: "nsc",
    mutate: inCall(refreshes, (call) => ({ ...call, ms: call.ms + 5000 })),
  },
];

type Pick = (call: RecordedCall, component: string, recorded: RecordedCase) => boolean;

function sends(method: string, to?: string): Pick {
  return (call, component, recorded) =>
    call.client === component &&
    call.method.endsWith(method) &&
    call.status?.code === 0 &&
    (to === undefined || componentOf(recorded, call.server).role === to);
}

function serves(method: string): Pick {
  return (call, component) =>
    call.server === component && call.method.endsWith(method) && call.status?.code === 0;
}

function refuses(call: RecordedCall, component: string): boolean {
  return call.server === component && call.method.endsWith("Register") && call.status?.code === 7;
}

function watches(call: RecordedCall, component: string): boolean {
  return (
    call.server === component && call.method.endsWith("EndpointRegistry/Find") && call.responses.length > 1
  );
}

function refreshes(call: RecordedCall, component: string, recorded: RecordedCase): boolean {
  const isFirst = recorded.calls.find((each) => sends(REQUEST)(each, component, recorded)) === call;
  return sends(REQUEST)(call, component, recorded) && !isFirst;
}

/** Changes the first call that fits. */
function inCall(pick: Pick, change: (call: RecordedCall) => RecordedCall) {
  return (recorded: RecordedCase, component: string): RecordedCase | undefined => {
    const at = recorded.calls.findIndex((call) => pick(call, component, recorded));
    const call = recorded.calls[at];
    return call && { ...recorded, calls: recorded.calls.with(at, change(call)) };
  };
}

/** Changes all that fit: those that are alike stand in for one another. */
function inEveryCall(pick: Pick, change: (call: RecordedCall) => RecordedCall) {
  return (recorded: RecordedCase, component: string): RecordedCase | undefined => {
    const isMeant = (call: RecordedCall) => pick(call, component, recorded);
    const calls = recorded.calls.map((call) => (isMeant(call) ? change(call) : call));
    return recorded.calls.some(isMeant) ? { ...recorded, calls } : undefined;
  };
}

function without(pick: Pick) {
  return (recorded: RecordedCase, component: string): RecordedCase | undefined => {
    const gone = recorded.calls.find((call) => pick(call, component, recorded));
    return gone && { ...recorded, calls: recorded.calls.filter((call) => call !== gone) };
  };
}

function inRequest(change: (json: JsonValue) => JsonValue) {
  return (call: RecordedCall): RecordedCall => {
    const { input } = methodOf(call);
    const bytes = encodeMessage(input, fromJson(input, change(toJson(input, requestOf(call))))).toString(
      "base64",
    );
    return { ...call, requests: call.requests.map((request) => ({ ...request, bytes })) };
  };
}

function inResponse(change: (json: JsonValue) => JsonValue) {
  return (call: RecordedCall): RecordedCall => {
    const { output } = methodOf(call);
    const changed = responsesOf(call).map((response) =>
      encodeMessage(output, fromJson(output, change(toJson(output, response)))).toString("base64"),
    );
    return {
      ...call,
      responses: call.responses.map((response, i) => ({ ...response, bytes: changed[i] ?? "" })),
    };
  };
}

function cutPath(call: RecordedCall): RecordedCall {
  const path = (call.metadata["path"]?.[0] ?? "").replace(/\{"token":"[^"]*"\}\]/, '{"token":""}]');
  return { ...call, metadata: { ...call.metadata, path: [path] } };
}

function changeCode(call: RecordedCall): RecordedCall {
  return { ...call, status: { code: 5, message: "" } };
}

function succeed(call: RecordedCall): RecordedCall {
  return { ...call, status: { code: 0, message: "" } };
}

function dropLastResponse(call: RecordedCall): RecordedCall {
  return { ...call, responses: call.responses.slice(0, -1) };
}

function changeLabel(json: JsonValue): JsonValue {
  return changed(
    json,
    ["connection", "labels", Object.keys(memberOf(memberOf(json, "connection"), "labels") ?? {})[0] ?? ""],
    "other",
  );
}

function changeFirstId(json: JsonValue): JsonValue {
  return changed(json, ["connection", "path", "pathSegments", "0", "id"], "other");
}

function changeAddress(json: JsonValue): JsonValue {
  return changed(json, ["context", "ipContext", "srcIpAddrs", "0"], "192.0.2.77/32");
}

function changeEndpoint(json: JsonValue): JsonValue {
  return changed(json, ["connection", "networkServiceEndpointName"], "other");
}

function changeClosed(json: JsonValue): JsonValue {
  return changed(json, ["networkServiceEndpointName"], "other");
}

function changeAskedService(json: JsonValue): JsonValue {
  return changed(json, ["networkService", "name"], "other");
}

function changeUrl(json: JsonValue): JsonValue {
  return changed(json, ["networkServiceEndpoint", "url"], "tcp://192.0.2.77:5001");
}

function changeTunnelEnd(json: JsonValue): JsonValue {
  return changed(json, ["mechanismPreferences", "0", "parameters", "src_ip"], "192.0.2.77");
}

function changeName(json: JsonValue): JsonValue {
  return changed(json, ["name"], "other");
}

/** The message with another value at that place. */
function changed(json: JsonValue, [first, ...rest]: readonly string[], value: JsonValue): JsonValue {
  if (first === undefined) return value;
  if (Array.isArray(json)) return json.with(Number(first), changed(json[Number(first)] ?? null, rest, value));
  if (typeof json !== "object" || json === null) throw new Error(`no ${first} in ${JSON.stringify(json)}`);
  return { ...json, [first]: changed(json[first] ?? null, rest, value) };
}
