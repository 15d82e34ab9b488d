/** `nsm explain`: why each endpoint of a service is taken for a client, or not, by the rules that forwarders choose by. */
import { create } from "@bufbuild/protobuf";
import type { Connection } from "../api/gen/connection_pb.js";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../api/gen/registry_pb.js";
import { remarkOn } from "../sdk/elements/monitor.ts";
import { NsmError } from "../sdk/errors.ts";
import { explain } from "../sdk/explain.ts";
import { findAll } from "../sdk/registry/registry.ts";
import { openMeshClient } from "./client.ts";
import type { MeshClient } from "./client.ts";
import { ExitCode } from "./exit-code.ts";
import { explainText } from "./explain-text.ts";
import type { Explained } from "./explain-text.ts";
import { outputWidth, writeDocument } from "./get-print.ts";
import { wiresOf } from "./get-sources.ts";
import { wireId } from "./get-wires.ts";
import { untilInterrupted } from "./interrupted.ts";
import { printableLines } from "./printable.ts";

export interface ExplainOptions {
  readonly output: "table" | "json" | "yaml";
  /** `key=value` each, beside or in place of those of the wire. */
  readonly labels: readonly string[];
  readonly manager: string | undefined;
}

/**
 * `client`: name of a client, id of its connection, or of the wire as `nsm get wires` shows it (also cut). Exit code 0; 4 when the registry
 * has no such service. A client without a visible wire is explained by the labels that are given.
 */
export async function runExplain(client: string, service: string, options: ExplainOptions): Promise<number> {
  using interruption = untilInterrupted();
  const { signal } = interruption;
  const given = labelsOf(options.labels);
  try {
    await using mesh = await openMeshClient({ manager: options.manager, env: process.env, signal });
    const explained = await explainWire(mesh, client, service, given, signal);
    if (options.output === "table") process.stdout.write(explainText(explained, outputWidth()));
    else writeDocument(options.output, explained);
    return ExitCode.ok;
  } catch (error) {
    if (signal.aborted) return ExitCode.interrupted;
    if (!(error instanceof NsmError) || error.reason !== "service-not-found") throw error;
    process.stderr.write(`nsm explain: ${printableLines(error.message)}\n`);
    return ExitCode.notFound;
  }
}

async function explainWire(
  mesh: MeshClient,
  client: string,
  name: string,
  given: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<Explained> {
  const { registries } = mesh.manager;
  const { forwarderService } = mesh;
  const endpointsOf = (service: string) =>
    findAll(
      registries.endpoints,
      create(NetworkServiceEndpointSchema, { networkServiceNames: [service] }),
      signal,
    );
  const [services, endpoints, forwarders, wire] = await Promise.all([
    findAll(registries.services, create(NetworkServiceSchema, { name }), signal),
    endpointsOf(name),
    endpointsOf(forwarderService),
    wireOf(mesh, client, name, signal),
  ]);
  const service = services.find((each) => each.name === name);
  if (service === undefined)
    throw new NsmError(
      "NOT_FOUND",
      "service-not-found",
      `no network service ${JSON.stringify(name)} is registered: nsm get services lists them`,
    );
  const labels = { ...wire?.labels, ...given };
  const result = explain({
    service,
    endpoints,
    // Those of the node that was asked appear with their sockets.
    forwarders: forwarders.filter(({ url }) => !url.startsWith("tcp:")),
    forwarderService,
    labels,
    current: wire && { endpoint: wire.networkServiceEndpointName, forwarder: forwarderOf(wire) },
    nowMs: Date.now(),
  });
  return {
    client: wire?.path?.pathSegments[0]?.name ?? client,
    service: name,
    wire: wire === undefined ? null : wireId(wire),
    labels,
    matches: service.matches.length,
    match: result.match ?? null,
    rule: result.rule ?? null,
    remark: (wire && remarkOn(wire)) ?? null,
    endpoints: result.endpoints.map(({ preference, ...rest }) => ({ ...rest, ...preference })),
    forwarders: result.forwarders,
  };
}

/** Of several wires of a client to one service the first. */
async function wireOf(
  { manager }: MeshClient,
  client: string,
  service: string,
  signal: AbortSignal,
): Promise<Connection | undefined> {
  for await (const update of wiresOf(manager).read(false, signal)) {
    if (update.kind !== "list") continue;
    const wires = [...update.items.values()].filter(({ networkService }) => networkService === service);
    return wires.find((wire) => isOf(wire, client));
  }
  return undefined;
}

const SHORTEST_ID = 4;

function isOf(wire: Connection, client: string): boolean {
  const [own] = wire.path?.pathSegments ?? [];
  const isCut = client.length >= SHORTEST_ID && wireId(wire).startsWith(client);
  return own?.name === client || own?.id === client || isCut;
}

function forwarderOf({ path }: Connection): string {
  return path?.pathSegments[path.index + 1]?.name ?? "";
}

/** Throws INVALID_ARGUMENT `bad-label`. */
function labelsOf(texts: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    texts.map((text): [string, string] => {
      const at = text.indexOf("=");
      if (at < 1)
        throw new NsmError(
          "INVALID_ARGUMENT",
          "bad-label",
          `--label ${JSON.stringify(text)}: expected key=value`,
        );
      return [text.slice(0, at), text.slice(at + 1)];
    }),
  );
}
