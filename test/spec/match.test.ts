/** Selection, turn taking, registry queries, selector templates and monitor selectors as recorded. */
import { fromJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { ConnectionSchema, MonitorScopeSelectorSchema } from "../../api/gen/connection_pb.js";
import type { Connection } from "../../api/gen/connection_pb.js";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../api/gen/registry_pb.js";
import type { NetworkServiceEndpoint } from "../../api/gen/registry_pb.js";
import { NsmError } from "../../sdk/errors.ts";
import {
  createTurns,
  discover,
  isSubset,
  matchesEndpoint,
  matchesMonitorSelector,
  matchesNetworkService,
  renderSelectorValue,
} from "../../sdk/match.ts";
import type { Labels } from "../../sdk/match.ts";
import { forwarderOfClose, selectForwarders } from "../../sdk/match-forwarders.ts";
import { describeVectors, outcomeOf, same, sameError, vectorKind } from "./support.ts";
import type { VectorError, VectorFile } from "./support.ts";

interface RegistryContent {
  readonly services: readonly JsonValue[];
  readonly endpoints: readonly JsonValue[];
}

interface DiscoverCase extends RegistryContent {
  readonly connection: JsonValue;
  readonly candidates?: readonly string[];
  readonly payload?: string;
  readonly url?: string;
  readonly error?: VectorError;
}

interface ForwarderCase {
  readonly connection: JsonValue;
  readonly services: readonly JsonValue[];
  readonly forwarders: readonly JsonValue[];
  readonly managerUrl: string;
  readonly refuses: number;
  readonly tried: readonly string[];
  readonly triedAgain?: readonly string[];
  readonly closeUrl?: string;
  readonly error?: VectorError;
}

interface TurnsCase extends RegistryContent {
  readonly steps: readonly {
    readonly connection: JsonValue;
    readonly refusing: readonly string[];
    readonly tried: readonly string[];
    readonly error?: VectorError;
  }[];
}

interface QueryCase {
  readonly query: JsonValue;
  readonly record: JsonValue;
  readonly matches?: boolean;
  readonly crash?: boolean;
}

interface TemplateCase {
  readonly template: string;
  readonly labels: Labels | null;
  readonly result: string;
}

interface SubsetCase {
  readonly selector: Labels | null;
  readonly of: Labels | null;
  readonly labels: Labels | null;
  readonly result: boolean;
}

interface MonitorCase {
  readonly selector: JsonValue;
  readonly connection: JsonValue;
  readonly matches: boolean;
}

const connectionOf = (json: JsonValue) => fromJson(ConnectionSchema, json);
const servicesOf = (json: readonly JsonValue[]) =>
  json.map((record) => fromJson(NetworkServiceSchema, record));
const endpointsOf = (json: readonly JsonValue[]) =>
  json.map((record) => fromJson(NetworkServiceEndpointSchema, record));

function nowOf(file: VectorFile): number {
  return Date.parse(String(file["now"]));
}

async function checkDiscover(vector: DiscoverCase, file: VectorFile): Promise<void> {
  const ours = await outcomeOf(() =>
    discover({
      connection: connectionOf(vector.connection),
      services: servicesOf(vector.services),
      endpoints: endpointsOf(vector.endpoints),
      nowMs: nowOf(file),
    }),
  );
  const found = sameError(ours, vector.error);
  if (found === undefined) return;
  if (found.kind === "named") {
    same("url", found.endpoint.url, vector.url);
    return;
  }
  same(
    "candidates",
    found.candidates.map(({ endpoint }) => endpoint.name),
    vector.candidates,
  );
  same("payload", found.payload, vector.payload);
}

async function checkForwarder(vector: ForwarderCase): Promise<void> {
  const connection = connectionOf(vector.connection);
  const input = {
    services: servicesOf(vector.services),
    forwarders: endpointsOf(vector.forwarders),
    forwarderService: "forwarder",
    managerUrl: vector.managerUrl,
  };
  const tried: string[] = [];
  const request = (refuses: number, remembered: string | undefined): NetworkServiceEndpoint => {
    tried.length = 0;
    for (const forwarder of selectForwarders({ ...input, connection, remembered })) {
      tried.push(forwarder.url);
      if (tried.length > refuses) return forwarder;
    }
    throw new NsmError("UNAVAILABLE", "refused", "all forwarders have failed");
  };
  const chosen = sameError(await outcomeOf(() => request(vector.refuses, undefined)), vector.error);
  same("tried", tried, vector.tried);
  if (chosen === undefined) return;
  const again = request(0, chosen.name);
  same("triedAgain", tried, vector.triedAgain);
  const closed = forwarderOfClose({ ...input, connection, remembered: again.name });
  same("closeUrl", closed?.url, vector.closeUrl);
}

async function checkTurns(vector: TurnsCase, file: VectorFile): Promise<void> {
  const services = servicesOf(vector.services);
  const endpoints = endpointsOf(vector.endpoints);
  const turns = createTurns();
  const attempt = (connection: Connection, refusing: readonly string[], tried: string[]) => {
    const found = discover({ connection, services, endpoints, nowMs: nowOf(file) });
    if (found.kind === "named") throw new Error("turns are for services, not for named endpoints");
    for (const { endpoint } of turns.tries(connection.networkService, found.candidates)) {
      tried.push(endpoint.name);
      if (!refusing.includes(endpoint.name)) return;
    }
    throw new NsmError("UNAVAILABLE", "refused", "all candidates have failed");
  };
  for (const step of vector.steps) {
    const tried: string[] = [];
    sameError(
      await outcomeOf(() => attempt(connectionOf(step.connection), step.refusing, tried)),
      step.error,
    );
    same("tried", tried, step.tried);
  }
}

const ACTION = /\{\{-?([^]*?)-?\}\}/g;
const LABEL_ACCESS = /^\s*(\$?(\.[\p{L}_][\p{L}\p{Nd}_]*)+|index\s+[.$]\s+("[^"\\]*"|`[^`]*`))\s*$/u;

/** The recording rendered a template that does more than put labels in. */
function computes({ template, result }: TemplateCase): boolean {
  const actions = [...template.matchAll(ACTION)].map((action) => action[1] ?? "");
  return result !== template && actions.some((action) => !LABEL_ACCESS.test(action));
}

/** Go's process ends there; a record without expiry is no match. */
const crashes = { record: "D2", differs: ({ crash }: QueryCase) => crash === true };

describeVectors("match.json", {
  discover: vectorKind(checkDiscover),
  forwarder: vectorKind(checkForwarder),
  turns: vectorKind(checkTurns),
  "query-ns": vectorKind((vector: QueryCase) =>
    same(
      "matches",
      matchesNetworkService(
        fromJson(NetworkServiceSchema, vector.query),
        fromJson(NetworkServiceSchema, vector.record),
      ),
      vector.matches,
    ),
  ),
  "query-nse": vectorKind(
    (vector: QueryCase) =>
      same(
        "matches",
        matchesEndpoint(
          fromJson(NetworkServiceEndpointSchema, vector.query),
          fromJson(NetworkServiceEndpointSchema, vector.record),
        ),
        vector.matches,
      ),
    [crashes],
  ),
  template: vectorKind(
    (vector: TemplateCase) =>
      same("result", renderSelectorValue(vector.template, vector.labels ?? {}), vector.result),
    [{ record: "D1", differs: computes }],
  ),
  subset: vectorKind((vector: SubsetCase) =>
    same("result", isSubset(vector.selector ?? {}, vector.of ?? {}, vector.labels ?? {}), vector.result),
  ),
  "monitor-selector": vectorKind((vector: MonitorCase) =>
    same(
      "matches",
      matchesMonitorSelector(
        fromJson(MonitorScopeSelectorSchema, vector.selector),
        connectionOf(vector.connection),
      ),
      vector.matches,
    ),
  ),
});
