/** Endpoints and forwarders as clients of their manager: they register when the recorded one was told to, and renew by themselves. */
import { create } from "@bufbuild/protobuf";
import type { NetworkService, NetworkServiceEndpoint } from "../../../api/gen/registry_pb.js";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../../api/gen/registry_pb.js";
import { ownRecord } from "../../../forwarder/record.ts";
import type { RegisterOptions } from "../../../nse/register.ts";
import { registerAll } from "../../../nse/register.ts";
import { Defaults } from "../../../sdk/defaults.ts";
import { silentLogger as log } from "../../../sdk/log.ts";
import { decodeMessage } from "../../../sdk/message.ts";
import { idMatcher } from "../../../sdk/peer-ids.ts";
import { createRegistryClient } from "../../../sdk/registry/client.ts";
import { keepRegistered } from "../../../sdk/registry/registrant.ts";
import type { Registrant } from "../../../sdk/registry/registrant.ts";
import type { Registries } from "../../../sdk/registry/registry.ts";
import type { Bench } from "./bench.ts";
import type { Playback } from "./playback.ts";
import { serverOf } from "./recording.ts";
import type { RecordedCall, RecordedCase, RecordedStep } from "./recording.ts";

/** The registries of the node's manager, as seen from a process of the node. */
export function registriesOf(bench: Bench, { pool }: Playback): Registries {
  const { recorded, component, minter, clock, trustDomain, places } = bench;
  const expect = idMatcher(Defaults.managerIds.split(","), trustDomain);
  const url = places.urlOf(serverOf(recorded, component.name, "nsmgr"));
  return createRegistryClient({ pool, minter, clock, target: { url, expect } });
}

/** Where the node is, as the daemons read it from their environment. */
export function nodeOf({ component: { env = {} } }: Bench) {
  return {
    nodeName: env["NODE_NAME"],
    podName: env["POD_NAME"],
    zoneName: env["ZONE_NAME"],
    clusterName: env["CLUSTER_NAME"],
  };
}

export interface Registering extends AsyncDisposable {
  step(step: RecordedStep): Promise<void>;
}

/** Starts the next registration at each step `register-ns` and `register`, and ends the last one at `unregister`. */
export function createRegistering(all: Iterator<Registrant>): Registering {
  const open: Registrant[] = [];
  return {
    async step({ component, do: what }) {
      if (what === "unregister") await open.at(-1)?.[Symbol.asyncDispose]();
      if (what !== "register-ns" && what !== "register") return;
      const next = all.next();
      if (next.done === true) throw new Error(`${component} has nothing more to register`);
      open.push(next.value);
      await next.value.registered;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(open.map((registrant) => registrant[Symbol.asyncDispose]()));
    },
  };
}

/** What an endpoint like the recorded one registers. */
export function* endpointRegistrants(bench: Bench, playback: Playback): Generator<Registrant> {
  const { recorded, component, places, clock } = bench;
  const record = firstRecord(recorded, component.name);
  if (record === undefined) return;
  const service = firstService(recorded, component.name);
  const config: RegisterOptions["config"] = {
    ...nodeOf(bench),
    name: component.name,
    serviceNames: record.networkServiceNames,
    registerService: service !== undefined,
    payload: service?.payload === "ETHERNET" ? "ETHERNET" : "IP",
    labels: ownLabels(bench, record),
    unregisterItself: doesUnregister(bench),
    idleTimeoutMs: 0,
  };
  const registries = registriesOf(bench, playback);
  yield* registerAll({ config, registries, url: places.urlOf(component.name), clock, log });
}

/** What a forwarder like the recorded one registers. */
export function* forwarderRegistrants(bench: Bench, playback: Playback): Generator<Registrant> {
  const { recorded, component, places, clock } = bench;
  const record = firstRecord(recorded, component.name);
  const [service] = record?.networkServiceNames ?? [];
  if (record === undefined || service === undefined) return;
  const { name } = component;
  const listenOn = places.urlOf(name);
  yield keepRegistered({
    registry: registriesOf(bench, playback).endpoints,
    entry: () => ownRecord({ ...nodeOf(bench), name, service, labels: ownLabels(bench, record), listenOn }),
    query: create(NetworkServiceEndpointSchema, { name }),
    what: name,
    unregister: doesUnregister(bench),
    clock,
    log,
  });
}

function doesUnregister({ recorded, component }: Bench): boolean {
  return recorded.steps.some((step) => step.component === component.name && step.do === "unregister");
}

/** The record as its owner first sent it. */
export function firstRecord(recorded: RecordedCase, name: string): NetworkServiceEndpoint | undefined {
  const bytes = firstBytes(recorded, name, "/registry.NetworkServiceEndpointRegistry/Register");
  return bytes && decodeMessage(NetworkServiceEndpointSchema, bytes);
}

function firstService(recorded: RecordedCase, name: string): NetworkService | undefined {
  const bytes = firstBytes(recorded, name, "/registry.NetworkServiceRegistry/Register");
  return bytes && decodeMessage(NetworkServiceSchema, bytes);
}

function firstBytes(recorded: RecordedCase, name: string, method: string): Buffer | undefined {
  const isIt = (call: RecordedCall) => call.client === name && call.method === method;
  const bytes = recorded.calls.find(isIt)?.requests[0]?.bytes;
  return bytes === undefined ? undefined : Buffer.from(bytes, "base64");
}

/** The labels of the configuration: those of the record that do not come from the environment. */
export function ownLabels(bench: Bench, record: NetworkServiceEndpoint): ReadonlyMap<string, string> {
  const [first] = Object.values(record.networkServiceLabels);
  const node = Object.keys(nodeOf(bench));
  return new Map(Object.entries(first?.labels ?? {}).filter(([label]) => !node.includes(label)));
}
