/**
 * What a comparison leaves out, on both sides or on one, each with its reason. Whatever is left out here on our side only is
 * left out only while it has the value that it must have.
 */
import { pid } from "node:process";
import { toJson } from "@bufbuild/protobuf";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { Bench } from "./bench.ts";
import { memberOf } from "./places.ts";
import { methodOf, requestOf } from "./recording.ts";
import type { RecordedCall } from "./recording.ts";

export type Side = "ours" | "recorded";

/** Changes one object of a message; `key` is the member that it is in. */
type Rule = (object: JsonObject, key: string) => JsonObject;

/** A request, as one of the component's calls or as one that it serves. */
export function normalRequest(
  bench: Bench,
  call: RecordedCall,
  json: JsonValue,
  side: Side,
  byItself = false,
): JsonValue {
  const { name, service } = methodOf(call);
  const rules = commonRules(bench);
  // What ours decides by itself carries the tokens of its client's last call; the next hop writes our segment anew.
  if (byItself) rules.push(withoutTokenOf(bench.component.name));
  if (side === "ours" && bench.component.role === "nsmgr") rules.push(withoutOwnPid);
  // Our one stream a hop names our segment, not one connection of many.
  if (name === "monitorConnections") rules.push(without("pathSegments", "id"));
  // We watch where Go asks each time.
  if (name === "find") rules.push(without("", "watch"));
  // A service is taken out by its name; registries look at nothing else of it.
  if (name === "unregister" && service.endsWith("NetworkServiceRegistry")) rules.push(only("", "name"));
  if (name === "register" || name === "unregister") rules.push(...registrantRules(bench));
  return applied(rules, json);
}

/** Endpoints and forwarders as clients of their manager. */
function registrantRules({ component: { role } }: Bench): Rule[] {
  if (role !== "nse" && role !== "forwarder") return [];
  // A renewal of ours repeats the first registration; Go's repeats the answer to it.
  const rules = [without("", "pathIds"), without("", "initialRegistrationTime")];
  // Ours knows its node; the recorded one leaves that to the manager.
  if (role === "forwarder")
    rules.push(...["nodeName", "podName", "clusterName"].map((label) => without("labels", label)));
  return rules;
}

export function normalResponse(bench: Bench, call: RecordedCall, json: JsonValue, side: Side): JsonValue {
  const { name } = methodOf(call);
  const { role } = bench.component;
  const rules = commonRules(bench);
  if (name === "monitorConnections") rules.push(asLastAnnounced);
  // Tokens are bearer credentials: events do not show them (docs/protocol.md, "Monitoring").
  if (side === "recorded" && name === "monitorConnections") rules.push(without("pathSegments", "token"));
  // Who answered is UP; Go's endpoints show the state that they were asked with.
  if (side === "recorded" && role === "nse") rules.push(withoutAskedState);
  // Names of wires are not in the scope of our endpoint; the recorded one has a DNS configuration.
  if (role === "nse" && !hasDns(call)) rules.push(without("context", "dnsContext"));
  return applied(rules, json);
}

function commonRules({ component, places }: Bench): Rule[] {
  return [
    // A message without members says nothing that its absence does not.
    (object) => withoutEmpty(object, ["context", "ipContext", "dnsContext", "parameters"]),
    // The same socket, as a descriptor, a path, or a path in the view of a process.
    (object) =>
      typeof object["url"] === "string" ? { ...object, url: places.plain(object["url"]) } : object,
    // Interface names in segments are for people only; ours write none, and pass on those of others.
    (object, key) =>
      key === "pathSegments" && object["name"] === component.name ? dropped(object, "metrics") : object,
    // The recorded forwarders have no data plane and no MTU; ours is compared with the planned devices.
    ...(component.role === "forwarder" ? [without("context", "MTU"), without("parameters", "MTU")] : []),
    // The manager's word for a process stands for the descriptor that travelled beside the recorded request.
    ...(component.role === "forwarder" ? [without("parameters", "peerPID")] : []),
  ];
}

function withoutAskedState(object: JsonObject): JsonObject {
  return object["state"] === "RESELECT_REQUESTED" ? dropped(object, "state") : object;
}

/** A deletion shows the connection as it was last announced; in Go as the Close found it, with the Close's tokens (D32). */
function asLastAnnounced(event: JsonObject, key: string): JsonObject {
  if (key !== "" || event["type"] !== "DELETE") return event;
  const dropMoment: Rule = (object) => dropped(dropped(object, "expires"), "state");
  return { ...event, connections: applied([dropMoment], event["connections"] ?? {}) };
}

/** Our managers name the calling process, which is this one; any other number stays and differs. */
function withoutOwnPid(object: JsonObject, key: string): JsonObject {
  return key === "parameters" && object["peerPID"] === String(pid) ? dropped(object, "peerPID") : object;
}

function withoutTokenOf(name: string): Rule {
  return (object, key) =>
    key === "pathSegments" && object["name"] === name ? dropped(dropped(object, "token"), "expires") : object;
}

function hasDns(call: RecordedCall): boolean {
  if (methodOf(call).isStream) return false;
  const request = toJson(methodOf(call).input, requestOf(call));
  const context = memberOf(memberOf(request, "connection"), "context");
  return memberOf(memberOf(context, "dnsContext"), "configs") !== undefined;
}

function without(key: string, member: string): Rule {
  return (object, place) => (place === key ? dropped(object, member) : object);
}

function only(key: string, member: string): Rule {
  return (object, place) => (place === key ? { [member]: object[member] ?? null } : object);
}

function withoutEmpty(object: JsonObject, members: readonly string[]): JsonObject {
  return Object.fromEntries(
    Object.entries(object).filter(
      ([key, value]) => !(members.includes(key) && JSON.stringify(value) === "{}"),
    ),
  );
}

function dropped(object: JsonObject, member: string): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([key]) => key !== member));
}

/** From the leaves up; elements of a list are in the list's member, the message itself is in "". */
function applied(rules: readonly Rule[], json: JsonValue, key = ""): JsonValue {
  if (Array.isArray(json)) return json.map((element) => applied(rules, element, key));
  if (typeof json !== "object" || json === null) return json;
  const inner = Object.fromEntries(
    Object.entries(json).map(([name, value]) => [name, applied(rules, value, name)]),
  );
  return rules.reduce((object: JsonObject, rule) => rule(object, key), inner);
}
